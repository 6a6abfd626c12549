"""What the service says of its Redis at the start: a line for each thing that should be set otherwise."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from service.maintenance import startup_checks
from service.maintenance.startup_checks import faults_of, server_name
from service.observability.metrics import Metrics
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.sessions.scripts import SCRIPTS
from tests.conftest import StartReplica
from tests.redis_server import RedisServer
from tests.unpipelined_client import UnpipelinedClient

REDIS = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "aof_enabled": 1}
VALKEY = {**REDIS, "server_name": "valkey", "valkey_version": "9.1.2"}
EVERY_MINUTE = "60 1"

StartServer = Callable[..., RedisServer]


@pytest.fixture
def start_server(data_dir: Path) -> Iterator[StartServer]:
    """Starts a server that keeps an append-only file, with settings of its own, and stops it after the test."""
    started: list[RedisServer] = []

    def start(**settings: str) -> RedisServer:
        named = {name.replace("_", "-"): value for name, value in settings.items()}
        server = RedisServer(data_dir, append_only=True, settings=named)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the checks have said, each line behind its level."""
    caplog.set_level(logging.INFO)
    return lambda: [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.name == "service.maintenance.startup_checks"
    ]


def faults(info: dict[str, Any], *, save_points: str | None = "", clock_ahead_seconds: float = 0) -> list[str]:
    return faults_of(info, save_points, clock_ahead_seconds)


async def check(url: str) -> None:
    source = client_factory(url, 2, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = source.new_client()
    await startup_checks.check_servers(redis_client, set())
    await redis_client.aclose()
    await source.aclose()


# What INFO tells


@pytest.mark.parametrize("info", [REDIS, VALKEY], ids=["redis", "valkey"])
def test_of_a_server_that_is_set_up_well_nothing_is_said(info: dict[str, Any]) -> None:
    assert faults(info) == []


def test_a_server_goes_by_its_own_name() -> None:
    assert (server_name(REDIS), server_name(VALKEY)) == ("Redis 7.2.4", "Valkey 9.1.2")


@pytest.mark.parametrize("version", ["6.2.14", "6.9", "2.8.24"])
def test_a_redis_before_7_is_too_old(version: str) -> None:
    (fault,) = faults(REDIS | {"redis_version": version})

    assert fault == f"Redis {version} is too old for this service: use Redis 7.0 or newer, or Valkey"


@pytest.mark.parametrize("version", ["7.0.0", "8.2.1", "10.0", "7.4.0-v1", "255.255.255", "of its own kind", ""])
def test_a_newer_redis_or_one_of_its_own_kind_is_not(version: str) -> None:
    assert faults(REDIS | {"redis_version": version}) == []


def test_a_valkey_is_never_too_old() -> None:
    assert faults(VALKEY | {"redis_version": "6.2.14"}) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_a_policy_that_evicts_is_named_with_what_to_set(policy: str) -> None:
    (fault,) = faults(REDIS | {"maxmemory_policy": policy})

    assert f"(maxmemory-policy {policy})" in fault
    assert fault.endswith("set maxmemory-policy to noeviction")


@pytest.mark.parametrize(("maxmemory", "faulty"), [(0, 0), (1, 1)])
def test_a_policy_is_no_fault_where_nothing_limits_the_memory(maxmemory: int, faulty: int) -> None:
    assert len(faults(REDIS | {"maxmemory_policy": "allkeys-lru", "maxmemory": maxmemory})) == faulty


def test_with_neither_file_nor_save_points_nothing_is_kept() -> None:
    (fault,) = faults(REDIS | {"aof_enabled": 0})

    assert fault.endswith("set appendonly to yes")


@pytest.mark.parametrize("save_points", [EVERY_MINUTE, None], ids=["saves", "does not tell"])
def test_with_save_points_or_without_knowing_of_them_that_is_not_said(save_points: str | None) -> None:
    assert faults(REDIS | {"aof_enabled": 0}, save_points=save_points) == []


@pytest.mark.parametrize(("ahead_seconds", "where"), [(6.2, "6 s ahead of"), (-3600, "3600 s behind")])
def test_a_clock_far_from_its_own_is_told_with_how_far(ahead_seconds: float, where: str) -> None:
    (fault,) = faults(REDIS, clock_ahead_seconds=ahead_seconds)

    assert fault.startswith(f"the clock of Redis is {where} the clock of this replica")
    assert fault.endswith("synchronize both with NTP")


@pytest.mark.parametrize("ahead_seconds", [5, -5])
def test_a_clock_that_is_near_is_not(ahead_seconds: float) -> None:
    assert faults(REDIS, clock_ahead_seconds=ahead_seconds) == []


def test_every_fault_is_said() -> None:
    everything = {"redis_version": "6.0.16", "maxmemory_policy": "allkeys-lfu", "aof_enabled": 0}

    assert len(faults(everything, clock_ahead_seconds=60)) == 4


def test_what_a_server_does_not_tell_is_no_fault() -> None:
    assert faults({}) == []


# Real servers


async def test_a_server_that_is_set_up_well_is_named(start_server: StartServer, said: Callable[[], list[str]]) -> None:
    await check(start_server().url)

    (line,) = said()
    assert line.startswith("INFO the session store is Valkey ")


async def test_one_that_evicts_is_told(start_server: StartServer, said: Callable[[], list[str]]) -> None:
    await check(start_server(maxmemory="100mb", maxmemory_policy="allkeys-lru").url)

    (line,) = said()
    assert line.startswith("WARNING Redis evicts active sessions when it is full (maxmemory-policy allkeys-lru)")


async def test_one_that_would_evict_but_has_no_limit_is_not(
    start_server: StartServer, said: Callable[[], list[str]]
) -> None:
    await check(start_server(maxmemory_policy="allkeys-lru").url)

    (line,) = said()
    assert line.startswith("INFO the session store is Valkey ")


async def test_one_that_keeps_nothing_is_told(start_server: StartServer, said: Callable[[], list[str]]) -> None:
    await check(start_server(appendonly="no").url)

    (line,) = said()
    assert line.startswith("WARNING Redis stores nothing on disk")


async def test_one_that_saves_now_and_then_is_not(start_server: StartServer, said: Callable[[], list[str]]) -> None:
    await check(start_server(appendonly="no", save=EVERY_MINUTE).url)

    (line,) = said()
    assert line.startswith("INFO the session store is Valkey ")


async def test_one_whose_configuration_is_secret_is_believed(
    start_server: StartServer, said: Callable[[], list[str]]
) -> None:
    server = start_server(appendonly="no")
    server.command("ACL", "SETUSER", "default", "-config")

    await check(server.url)

    (line,) = said()
    assert line.startswith("INFO the session store is Valkey ")


async def test_one_that_refuses_info_is_told(start_server: StartServer, said: Callable[[], list[str]]) -> None:
    server = start_server()
    server.command("ACL", "SETUSER", "default", "-info")

    await check(server.url)

    (line,) = said()
    assert line.startswith("WARNING the version, eviction and persistence of the session store are not checked")
    assert "INFO" in line


async def test_a_clock_that_is_wrong_is_told_by_one_that_refuses_info_too(
    start_server: StartServer, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    server.command("ACL", "SETUSER", "default", "-info")
    an_hour_ago = time.time() - 3600
    monkeypatch.setattr("service.maintenance.startup_checks.time.time", lambda: an_hour_ago)

    await check(server.url)

    _, line = said()
    assert line.startswith("WARNING the clock of Redis is 3600 s ahead of the clock of this replica")


async def test_a_fake_that_knows_no_info_is_told(fake_redis: Redis, said: Callable[[], list[str]]) -> None:
    await startup_checks.check_servers(UnpipelinedClient(fake_redis, 2, StoreMonitor(Metrics())), set())

    assert len(said()) == 1


# The service


def test_the_service_says_it_at_its_start(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=redis_server.url)

    assert '"level":"warning"' in replica.wait_for_line("set appendonly to yes")


def test_the_embedded_server_is_set_up_well(data_dir: Path, start_replica: StartReplica) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert '"level":"info"' in replica.wait_for_line("the session store is Valkey")
    assert '"level":"warning"' not in replica.output
