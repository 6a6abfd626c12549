"""What deploy/OPERATIONS.md tells an operator to type is what Redis understands, and what it names is there."""

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from service.cli.arguments import HashIds, Inspect, Revoke, parse
from service.settings import Settings
from tests.cluster_servers import ClusterServers
from tests.conftest import AGENT, USER, HttpClient
from tests.redis_server import ADMIN, Login, RedisServer, free_port, wait_until
from tests.sentinel_servers import SentinelServers
from tests.test_walkthrough import SESSIONS

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
PAGE = (DEPLOY / "OPERATIONS.md").read_text()
SESSION = "4716d2ea-673d-47d0-b1bd-33202db7411b"
SOURCE = (DEPLOY.parent / "service" / "maintenance" / "health_reasons.py").read_text()
OLD_LOGIN = Login("default", "PASSWORD")


class Line(NamedTuple):
    """A line of redis-cli: whom it asks, what, and what is looked for in the answer."""

    options: str
    words: list[str]
    sought: list[str]

    @classmethod
    def read(cls, line: str) -> "Line":
        asked, _, grep = line.partition(" | grep ")
        found = re.fullmatch(r"redis-cli ((?:-c|-[hp] \S+)?) ?(.+?)(?: +#.*)?", asked)
        assert found, line
        pattern = shlex.split(grep, comments=True)[-1:] or [""]
        return cls(found[1], shlex.split(found[2]), pattern[0].split("|"))

    def run_on(self, url: str) -> Any:
        """The answer as it came. Raises what the server answers as an error."""
        with redis.Redis.from_url(url, decode_responses=True) as client:
            client.response_callbacks.clear()
            return client.execute_command(*self.words)

    def is_answered_on(self, url: str) -> None:
        """Everything that is looked for is found."""
        answer = str(self.run_on(url))

        assert [wanted for wanted in self.sought if not re.search(wanted, answer, re.MULTILINE)] == []


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("redis-cli ")]


def lines_below(heading: str) -> list[Line]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [Line.read(line) for line in lines_of(section)]


RUN = sorted({line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in lines_of(block)})
FAILOVER = "redis-cli -p 26379 SENTINEL FAILOVER sessions"
OF_ONE_SERVER = [line for line in RUN if not re.match("redis-cli -", line)]
OF_A_SENTINEL = [line for line in RUN if line.startswith("redis-cli -p 26379 ") and line != FAILOVER]
OF_A_CLUSTER = [line for line in RUN if line.startswith("redis-cli -c ")]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One of this page's own, with a session: what it says to set is set there."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), append_only=True)
        server.start()
        server.command("HSET", f"session:{{47}}:{SESSION}", "agentId", AGENT)
        server.command("HSET", f"session:{{47}}:{SESSION}:tombstone", "reason", "inactivity")
        yield server
        server.stop()


def test_every_line_is_run_by_one_of_these_tests() -> None:
    assert sorted([*OF_ONE_SERVER, *OF_A_SENTINEL, *OF_A_CLUSTER, FAILOVER]) == RUN
    assert len(RUN) > 30


@pytest.mark.parametrize("line", OF_ONE_SERVER)
def test_a_server_understands(server: RedisServer, line: str) -> None:
    Line.read(line).is_answered_on(server.admin_url)


@pytest.mark.parametrize("line", OF_A_SENTINEL)
def test_a_sentinel_understands(sentinel_servers: SentinelServers, line: str) -> None:
    sentinel_servers.wait_until_settled()

    Line.read(line).is_answered_on(f"redis://{ADMIN}{sentinel_servers.sentinels[0].address}")


def test_the_line_that_has_a_primary_replaced_does(sentinel_servers: SentinelServers) -> None:
    sentinel_servers.wait_until_settled()
    old = sentinel_servers.primary

    Line.read(FAILOVER).run_on(f"redis://{ADMIN}{sentinel_servers.sentinels[0].address}")

    assert sentinel_servers.wait_until_replaced(old) is not old
    sentinel_servers.wait_until_following()
    sentinel_servers.wait_until_settled()


@pytest.mark.parametrize("line", OF_A_CLUSTER)
def test_a_cluster_understands(cluster_servers: ClusterServers, line: str) -> None:
    Line.read(line).is_answered_on(cluster_servers.servers[0].admin_url)


def test_the_line_that_moves_slots_whole_moves_them(cluster_servers: ClusterServers) -> None:
    [line] = [found for found in lines_below("Cluster") if "MIGRATESLOTS" in found.words]
    source = cluster_servers.owner_of(0)
    target = next(node for node in cluster_servers.primaries if node is not source)
    there = line._replace(words=[*line.words[: line.words.index("NODE") + 1], target.id])
    back = there._replace(words=[*there.words[:-1], source.id])

    there.run_on(source.admin_url)

    assert cluster_servers.wait_until_served(0) is not None
    wait_until(lambda: cluster_servers.owner_of(0) is target, "the slots have moved")
    back.run_on(target.admin_url)
    wait_until(lambda: cluster_servers.wait_until_served(0) is source, "and back")


def test_a_restored_copy_is_kept_from_then_on(data_dir: Path) -> None:
    original, restored = room(data_dir, "a"), room(data_dir, "b")
    copied = RedisServer(original)
    copied.start()
    copied.command("SET", "kept", "yes")
    copied.command("SAVE")
    copied.stop()
    shutil.copy(original / "dump.rdb", restored / "sessions.rdb")
    server = RedisServer(restored, settings={"dbfilename": "sessions.rdb"})
    server.start()
    [switch] = [line for line in lines_below("Backup and restore") if line.words[:2] == ["CONFIG", "SET"]]
    [look] = [line for line in lines_below("Backup and restore") if "aof_rewrite_in_progress" in line.sought]

    switch.run_on(server.admin_url)
    wait_until(lambda: "aof_rewrite_in_progress:0" in str(look.run_on(server.admin_url)), "the file is written")
    server.stop()

    again = RedisServer(restored, append_only=True)
    again.start()
    assert again.command("GET", "kept") == b"yes"
    again.stop()


@pytest.fixture
def old_and_new(data_dir: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    behind_a_password = {"requirepass": OLD_LOGIN.password, "repl-diskless-sync-delay": "0"}
    old = RedisServer(room(data_dir, "o"), port=free_port(), settings=behind_a_password, login=OLD_LOGIN)
    new = RedisServer(room(data_dir, "n"), port=free_port())
    old.start()
    new.start()
    yield old, new
    old.stop()
    new.stop()


def test_moving_takes_everything_along_and_loses_nothing_that_is_still_sent(
    old_and_new: tuple[RedisServer, RedisServer],
) -> None:
    old, new = old_and_new
    old.command("SET", "kept", "yes")
    password, follow, linked, refuse, _, promote = lines_below("Move to another Redis")

    password.run_on(new.admin_url)
    assert follow.words == ["REPLICAOF", "old", "6379"]
    new.command("REPLICAOF", "127.0.0.1", old.port)
    wait_until(lambda: "master_link_status:up" in str(linked.run_on(new.admin_url)), "it follows")
    refuse.run_on(old.admin_url)
    promote.run_on(new.admin_url)

    with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        old.command("SET", "late", "yes")
    assert (old.command("GET", "kept"), new.command("GET", "kept")) == (b"yes", b"yes")
    assert cast(list[object], new.command("ROLE"))[0] == b"master"


@pytest.mark.parametrize("code", [*re.findall(r'"([A-Z]+_[A-Z]+)"', SOURCE), "CONTENTION", "AGENT_NOT_FOUND"])
def test_every_reason_has_a_section(code: str) -> None:
    assert re.search(rf"^### .*{code}", PAGE, re.MULTILINE)


def test_the_settings_that_it_names_are_settings() -> None:
    named = {*re.findall(r"\bSESSION_[A-Z_]+\b", PAGE)}

    assert named <= {name.upper() for name in Settings.model_fields}


async def test_the_metrics_that_it_names_are_served(client: HttpClient) -> None:
    await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    served = await (await client.get("/metrics")).text()
    families = {family.name for family in text_string_to_metric_families(served)}
    named = {name.removesuffix("_total") for name in re.findall(r"`((?:sessions|process)_\w+)", PAGE)}

    assert len(named) >= 5
    assert named <= families


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^python -m service (.+?)(?: +#.*)?$", PAGE, re.MULTILINE))))
def test_the_terminal_understands(line: str) -> None:
    assert isinstance(parse(shlex.split(line)), Inspect | Revoke | HashIds)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    assert (DEPLOY / link).exists()


def room(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name
