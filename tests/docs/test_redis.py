"""Compare docs/redis.md with the data model, the settings of the service and the files in deploy/."""

import re

import pytest

from service.sessions import keys
from service.settings import Settings
from tests.docs import markdown

PAGE = markdown.document("docs/redis.md")
CONFIGURATION = markdown.table_rows(markdown.section(PAGE, "Configuration of the server"))
DEPLOY = markdown.ROOT / "deploy"
FILES = "\n".join(
    (DEPLOY / name).read_text() for name in ("valkey.conf", "sentinel/server.sh", "cluster/node.sh")
).replace("--", "")


def keys_in(table: str) -> dict[str, tuple[str, set[str]]]:
    """Return the type of each key, and the fields of each hash."""
    rows = [row for row in markdown.table_rows(table) if len(row) == 4 and row[0].startswith("`session")]
    return {key: (type_, set(contents.split()) if type_ == "hash" else set()) for key, type_, contents, _ in rows}


def test_the_table_of_keys_equals_the_data_model() -> None:
    assert keys_in(markdown.section(PAGE, "Keys")) == keys_in(keys.__doc__ or "")


def test_the_schema_version_is_right() -> None:
    [row] = [row for row in markdown.table_rows(PAGE) if row[0] == "`sessions:layout`"]

    assert f"`{keys.SCHEMA_VERSION}`" in row[2]


@pytest.mark.parametrize("url", re.findall(r"^\| `((?:redis|unix)[^`]+)` \|", PAGE, re.MULTILINE))
def test_a_redis_url_is_valid(url: str) -> None:
    assert Settings(redis_url=url).redis_url is not None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (setting, value)
        for names, values, _ in CONFIGURATION
        for setting, value in zip(re.findall(r"`([\w.-]+)`", names), re.findall(r"`(\w+)`", values), strict=False)
        if "kernel" not in names
    ],
)
def test_the_files_in_deploy_use_the_recommended_settings(setting: str, value: str) -> None:
    assert re.search(rf"^ *{setting} {value}\b", FILES, re.MULTILINE)
