"""Run the commands of the documents for operators, and compare what these documents name with the service."""

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from service.cli.arguments import Serve, parse
from service.settings import Settings
from tests.cluster_servers import ClusterServers
from tests.conftest import AGENT, USER, HttpClient
from tests.docs import markdown, shell
from tests.docs.redis_commands import RedisCommand, redis_lines
from tests.redis_server import ADMIN, Login, RedisServer, free_port, wait_until
from tests.replica import Replica
from tests.sentinel_servers import SentinelServers
from tests.test_walkthrough import SESSIONS

PAGES = {
    name: markdown.document(f"docs/{name}.md")
    for name in ("deployment", "observability", "operations", "performance", "redis", "reliability")
}
RUNBOOK = PAGES["operations"]
SOURCE = (markdown.ROOT / "service" / "maintenance" / "health.py").read_text()
EXAMPLE_ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"
OLD_LOGIN = Login("default", "PASSWORD")
LOG = """
{"event":"request","status":503,"code":"CONTENTION","session":"8f380fbfdef8"}
{"log":"audit","action":"access","outcome":"refused","address":"203.0.113.7"}
"""

SH_BLOCKS = [block for page in PAGES.values() for block in markdown.blocks(page, "sh")]
REDIS_LINES = sorted({line for block in SH_BLOCKS for line in redis_lines(block)})
CLI_LINES = sorted(
    {line for block in SH_BLOCKS for line in block.splitlines() if line.startswith("python -m service ")}
)
SHELL_BLOCKS = [block for block in SH_BLOCKS if re.search("^(?!python -m service |redis-cli |$)", block, re.MULTILINE)]
FAILOVER = "redis-cli -p 26379 SENTINEL FAILOVER sessions"
SERVER_LINES = [line for line in REDIS_LINES if not line.startswith("redis-cli -")]
SENTINEL_LINES = [line for line in REDIS_LINES if line.startswith("redis-cli -p 26379 ") and line != FAILOVER]
CLUSTER_LINES = [line for line in REDIS_LINES if line.startswith("redis-cli -c ")]


def commands_below(page: str, heading: str) -> list[RedisCommand]:
    return [RedisCommand.parse(line) for line in redis_lines(markdown.section(page, heading))]


def folder_in(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server of its own with a session, because the commands change its configuration."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), append_only=True)
        server.start()
        server.command("HSET", f"session:{{47}}:{EXAMPLE_ID}", "agentId", AGENT)
        server.command("HSET", f"session:{{47}}:{EXAMPLE_ID}:tombstone", "reason", "inactivity")
        yield server
        server.stop()


def test_a_test_runs_every_redis_command() -> None:
    assert sorted([*SERVER_LINES, *SENTINEL_LINES, *CLUSTER_LINES, FAILOVER]) == REDIS_LINES
    assert len(REDIS_LINES) > 30


def test_a_block_with_redis_commands_contains_nothing_else() -> None:
    assert [block for block in SHELL_BLOCKS if redis_lines(block)] == []


@pytest.mark.parametrize("line", CLI_LINES)
def test_the_command_line_accepts_a_command(line: str) -> None:
    assert not isinstance(parse(shlex.split(line)[3:]), Serve)


@pytest.mark.parametrize("line", SERVER_LINES)
def test_a_command_succeeds_on_a_server(server: RedisServer, line: str) -> None:
    RedisCommand.parse(line).check_on(server.admin_url)


@pytest.mark.parametrize("line", SENTINEL_LINES)
def test_a_command_succeeds_on_a_sentinel(sentinel_servers: SentinelServers, line: str) -> None:
    sentinel_servers.wait_until_settled()

    RedisCommand.parse(line).check_on(f"redis://{ADMIN}{sentinel_servers.sentinels[0].address}")


def test_the_failover_command_replaces_the_primary(sentinel_servers: SentinelServers) -> None:
    sentinel_servers.wait_until_settled()
    old = sentinel_servers.primary

    RedisCommand.parse(FAILOVER).run_on(f"redis://{ADMIN}{sentinel_servers.sentinels[0].address}")

    assert sentinel_servers.wait_until_replaced(old) is not old
    sentinel_servers.wait_until_following()
    sentinel_servers.wait_until_settled()


@pytest.mark.parametrize("line", CLUSTER_LINES)
def test_a_command_succeeds_on_a_cluster(cluster_servers: ClusterServers, line: str) -> None:
    RedisCommand.parse(line).check_on(cluster_servers.servers[0].admin_url)


def test_the_migration_command_moves_slots(cluster_servers: ClusterServers) -> None:
    [command] = [found for found in commands_below(PAGES["redis"], "Cluster") if "MIGRATESLOTS" in found.words]
    source = cluster_servers.owner_of(0)
    target = next(node for node in cluster_servers.primaries if node is not source)
    there = command._replace(words=[*command.words[: command.words.index("NODE") + 1], target.id])
    back = there._replace(words=[*there.words[:-1], source.id])

    there.run_on(source.admin_url)

    assert cluster_servers.wait_until_served(0) is not None
    wait_until(lambda: cluster_servers.owner_of(0) is target, "the slots have moved")
    back.run_on(target.admin_url)
    wait_until(lambda: cluster_servers.wait_until_served(0) is source, "the slots are back")


def test_a_restored_backup_survives_a_restart(data_dir: Path) -> None:
    original, restored = folder_in(data_dir, "a"), folder_in(data_dir, "b")
    copied = RedisServer(original)
    copied.start()
    copied.command("SET", "kept", "yes")
    copied.command("SAVE")
    copied.stop()
    shutil.copy(original / "dump.rdb", restored / "sessions.rdb")
    server = RedisServer(restored, settings={"dbfilename": "sessions.rdb"})
    server.start()
    commands = commands_below(RUNBOOK, "Backup and restore")
    [append_only] = [command for command in commands if command.words[:2] == ["CONFIG", "SET"]]
    [progress] = [command for command in commands if "aof_rewrite_in_progress" in command.patterns]

    append_only.run_on(server.admin_url)
    wait_until(
        lambda: "aof_rewrite_in_progress:0" in str(progress.run_on(server.admin_url)), "the rewrite has finished"
    )
    server.stop()

    again = RedisServer(restored, append_only=True)
    again.start()
    assert again.command("GET", "kept") == b"yes"
    again.stop()


@pytest.fixture
def old_and_new(data_dir: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    with_password = {"requirepass": OLD_LOGIN.password, "repl-diskless-sync-delay": "0"}
    old = RedisServer(folder_in(data_dir, "o"), port=free_port(), settings=with_password, login=OLD_LOGIN)
    new = RedisServer(folder_in(data_dir, "n"), port=free_port())
    old.start()
    new.start()
    yield old, new
    old.stop()
    new.stop()


def test_a_migration_copies_the_data_and_rejects_late_changes(old_and_new: tuple[RedisServer, RedisServer]) -> None:
    old, new = old_and_new
    old.command("SET", "kept", "yes")
    password, follow, link, reject, _, promote = commands_below(RUNBOOK, "Move to another Redis")

    password.run_on(new.admin_url)
    assert follow.words == ["REPLICAOF", "old", "6379"]
    new.command("REPLICAOF", "127.0.0.1", old.port)
    wait_until(lambda: "master_link_status:up" in str(link.run_on(new.admin_url)), "replication has started")
    reject.run_on(old.admin_url)
    promote.run_on(new.admin_url)

    with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        old.command("SET", "late", "yes")
    assert (old.command("GET", "kept"), new.command("GET", "kept")) == (b"yes", b"yes")
    assert cast(list[object], new.command("ROLE"))[0] == b"master"


def test_the_example_output_has_the_labels_of_the_command() -> None:
    source = (markdown.ROOT / "service" / "cli" / "tables.py").read_text()
    totals, headings, *_ = markdown.blocks(RUNBOOK, "text")[0].split("\n\n")
    labels = [line.partition("  ")[0] for line in totals.splitlines()]
    columns = [heading for line in headings.splitlines() for heading in re.split(r"  +", line)]

    assert [label for label in (*labels, *columns) if f'"{label}"' not in source] == []


@pytest.fixture
def session_id(replica: Replica, tmp_path: Path) -> str:
    """The id of a session, whose log lines are in service.log."""
    _, session = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    created: str = session["sessionId"]
    assert replica.wait_for_line('"session.create"')
    (tmp_path / "service.log").write_text(replica.output + LOG)
    return created


@pytest.mark.parametrize("block", SHELL_BLOCKS)
def test_a_shell_block_succeeds(
    replica: Replica, redis_server: RedisServer, session_id: str, tmp_path: Path, block: str
) -> None:
    script = block.replace(EXAMPLE_ID, session_id)

    transcript = shell.run([script], replica.url, tmp_path, REDIS_URL=redis_server.url)

    assert transcript.output.strip()
    assert {request.split()[1] for request in transcript.requests} <= {"200"}


@pytest.mark.parametrize("code", [*re.findall(r'"([A-Z]+_[A-Z]+)"', SOURCE), "CONTENTION", "AGENT_NOT_FOUND"])
def test_the_runbook_has_a_section_for_every_reason(code: str) -> None:
    assert f"\n### {code}\n" in RUNBOOK


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_settings_that_a_page_names_exist(page: str) -> None:
    named = set(re.findall(r"\bSESSION_[A-Z_]+\b", page)) - {"SESSION_LIMIT_REACHED"}

    assert named <= {name.upper() for name in Settings.model_fields}


async def test_metrics_that_the_pages_name_exist(client: HttpClient) -> None:
    await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    served = await (await client.get("/metrics")).text()
    families = list(text_string_to_metric_families(served))
    existing = {family.name for family in families} | {sample.name for family in families for sample in family.samples}
    named = {
        name for page in PAGES.values() for name in re.findall(r"(?<!#)\b(?:sessions|process)_[a-z_]+[a-z]\b", page)
    }

    assert len(named) > 20
    assert named <= existing
