"""What the README tells a user to type does what the README says."""

import re
import shlex
import urllib.request
from argparse import ArgumentParser
from pathlib import Path

import pytest

from service.settings import Settings

README = (Path(__file__).parent.parent / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
OPENING, *FOLLOWING = [line for line in re.split(r"\n(?=curl|[A-Z]+=)", SHELL) if line.startswith("curl")]
SETTINGS_TABLE = README.partition("## Settings")[2].partition("\n## ")[0]

curl = ArgumentParser()
curl.add_argument("url")
curl.add_argument("-s", action="store_true")
curl.add_argument("-X", dest="method")
curl.add_argument("-H", dest="headers", action="append", default=[])
curl.add_argument("-d", dest="body")


def said_to(line: str, url: str, session_id: str = "") -> str:
    """What a curl line of the README is answered by the replica at `url`; the machine need not have curl."""
    at_home = line.replace("$API", f"{url}/api/messaging/sessions").replace("http://127.0.0.1:3000", url)
    asked = curl.parse_args(shlex.split(at_home.replace("$ID", session_id))[1:])
    request = urllib.request.Request(
        asked.url,
        data=asked.body.encode() if asked.body else None,
        headers=dict(header.split(": ") for header in asked.headers),
        method=asked.method,
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        said: bytes = response.read()
    return said.decode()


def test_the_curl_lines_live_through_a_session(replica_url: str) -> None:
    opened = said_to(OPENING, replica_url)
    session_id = re.findall(r'"sessionId":"([^"]+)"', opened)[0]

    answers = [said_to(line, replica_url, session_id) for line in FOLLOWING]

    assert [session_id in answer for answer in answers] == [True] * 6 + [False, True, False, True] + [False] * 7


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_table(name: str) -> None:
    assert f"| `{name.upper()}` |" in SETTINGS_TABLE


def test_the_table_has_no_setting_that_nobody_reads() -> None:
    told = re.findall(r"^\| `([A-Z_]+)` \|", SETTINGS_TABLE, re.MULTILINE)

    assert set(told) == {name.upper() for name in Settings.model_fields}
