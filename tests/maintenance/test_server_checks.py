"""At startup the service checks the configuration of Redis, and logs a line for each fault."""

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
SAVE_EVERY_MINUTE = "60 1"

StartServer = Callable[..., RedisServer]


@pytest.fixture
def start_server(data_dir: Path) -> Iterator[StartServer]:
    """Return a function that starts a server with an append-only file. The server is stopped after the test."""
    servers: list[RedisServer] = []

    def start(**settings: str) -> RedisServer:
        options = {name.replace("_", "-"): value for name, value in settings.items()}
        server = RedisServer(data_dir, append_only=True, settings=options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that lists the levels and messages the checks have logged."""
    caplog.set_level(logging.INFO)
    return lambda: [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.name == "service.maintenance.startup_checks"
    ]


def faults(info: dict[str, Any], *, save_points: str | None = "", clock_ahead_seconds: float = 0) -> list[str]:
    return faults_of(info, save_points, clock_ahead_seconds)


async def check(url: str) -> None:
    factory = client_factory(url, 10, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = factory.new_client()
    await startup_checks.check_servers(redis_client, set())
    await redis_client.aclose()
    await factory.aclose()


# Values of INFO


@pytest.mark.parametrize("info", [REDIS, VALKEY], ids=["redis", "valkey"])
def test_a_well_configured_server_has_no_faults(info: dict[str, Any]) -> None:
    assert faults(info) == []


def test_the_name_of_a_server_contains_its_version() -> None:
    assert (server_name(REDIS), server_name(VALKEY)) == ("Redis 7.2.4", "Valkey 9.1.2")


@pytest.mark.parametrize("version", ["6.2.14", "6.9", "2.8.24"])
def test_redis_before_7_is_too_old(version: str) -> None:
    (fault,) = faults(REDIS | {"redis_version": version})

    assert fault == f"Redis {version} is too old for this service: use Redis 7.0 or newer, or Valkey"


@pytest.mark.parametrize("version", ["7.0.0", "8.2.1", "10.0", "7.4.0-v1", "255.255.255", "custom", ""])
def test_a_newer_redis_or_an_unusual_version_is_accepted(version: str) -> None:
    assert faults(REDIS | {"redis_version": version}) == []


def test_valkey_is_never_too_old() -> None:
    assert faults(VALKEY | {"redis_version": "6.2.14"}) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_the_fault_of_an_eviction_policy_names_the_required_setting(policy: str) -> None:
    (fault,) = faults(REDIS | {"maxmemory_policy": policy})

    assert f"(maxmemory-policy {policy})" in fault
    assert fault.endswith("set maxmemory-policy to noeviction")


@pytest.mark.parametrize(("maxmemory", "faulty"), [(0, 0), (1, 1)])
def test_an_eviction_policy_is_a_fault_only_with_a_memory_limit(maxmemory: int, faulty: int) -> None:
    assert len(faults(REDIS | {"maxmemory_policy": "allkeys-lru", "maxmemory": maxmemory})) == faulty


def test_missing_persistence_is_a_fault() -> None:
    (fault,) = faults(REDIS | {"aof_enabled": 0})

    assert fault.endswith("set appendonly to yes")


@pytest.mark.parametrize("save_points", [SAVE_EVERY_MINUTE, None], ids=["saves", "not readable"])
def test_save_points_or_unreadable_save_points_are_accepted(save_points: str | None) -> None:
    assert faults(REDIS | {"aof_enabled": 0}, save_points=save_points) == []


@pytest.mark.parametrize(("clock_ahead_seconds", "difference"), [(6.2, "6 s ahead of"), (-3600, "3600 s behind")])
def test_the_fault_of_a_clock_contains_the_difference(clock_ahead_seconds: float, difference: str) -> None:
    (fault,) = faults(REDIS, clock_ahead_seconds=clock_ahead_seconds)

    assert fault.startswith(f"the clock of Redis is {difference} the clock of this replica")
    assert fault.endswith("synchronize both with NTP")


@pytest.mark.parametrize("clock_ahead_seconds", [5, -5])
def test_a_small_clock_difference_is_accepted(clock_ahead_seconds: float) -> None:
    assert faults(REDIS, clock_ahead_seconds=clock_ahead_seconds) == []


def test_all_faults_are_reported() -> None:
    everything = {"redis_version": "6.0.16", "maxmemory_policy": "allkeys-lfu", "aof_enabled": 0}

    assert len(faults(everything, clock_ahead_seconds=60)) == 4


def test_missing_information_is_not_a_fault() -> None:
    assert faults({}) == []


# Real servers


async def test_a_well_configured_server_is_logged_by_name(
    start_server: StartServer, log_lines: Callable[[], list[str]]
) -> None:
    await check(start_server().url)

    (line,) = log_lines()
    assert line.startswith("INFO the session store is Valkey ")


async def test_an_evicting_server_is_logged(start_server: StartServer, log_lines: Callable[[], list[str]]) -> None:
    await check(start_server(maxmemory="100mb", maxmemory_policy="allkeys-lru").url)

    (line,) = log_lines()
    assert line.startswith("WARNING Redis evicts active sessions when it is full (maxmemory-policy allkeys-lru)")


async def test_an_eviction_policy_without_a_memory_limit_is_not_logged(
    start_server: StartServer, log_lines: Callable[[], list[str]]
) -> None:
    await check(start_server(maxmemory_policy="allkeys-lru").url)

    (line,) = log_lines()
    assert line.startswith("INFO the session store is Valkey ")


async def test_a_server_without_persistence_is_logged(
    start_server: StartServer, log_lines: Callable[[], list[str]]
) -> None:
    await check(start_server(appendonly="no").url)

    (line,) = log_lines()
    assert line.startswith("WARNING Redis stores nothing on disk")


async def test_a_server_with_save_points_is_not_logged_as_volatile(
    start_server: StartServer, log_lines: Callable[[], list[str]]
) -> None:
    await check(start_server(appendonly="no", save=SAVE_EVERY_MINUTE).url)

    (line,) = log_lines()
    assert line.startswith("INFO the session store is Valkey ")


async def test_a_server_with_unreadable_configuration_has_no_faults(
    start_server: StartServer, log_lines: Callable[[], list[str]]
) -> None:
    server = start_server(appendonly="no")
    server.command("ACL", "SETUSER", "default", "-config")

    await check(server.url)

    (line,) = log_lines()
    assert line.startswith("INFO the session store is Valkey ")


async def test_a_server_that_rejects_info_is_logged(
    start_server: StartServer, log_lines: Callable[[], list[str]]
) -> None:
    server = start_server()
    server.command("ACL", "SETUSER", "default", "-info")

    await check(server.url)

    (line,) = log_lines()
    assert line.startswith("WARNING the version, eviction and persistence of the session store are not checked")
    assert "INFO" in line


async def test_a_wrong_clock_is_logged_even_if_the_server_rejects_info(
    start_server: StartServer, log_lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    server.command("ACL", "SETUSER", "default", "-info")
    an_hour_ago = time.time() - 3600
    monkeypatch.setattr("service.maintenance.startup_checks.time.time", lambda: an_hour_ago)

    await check(server.url)

    _, line = log_lines()
    assert line.startswith("WARNING the clock of Redis is 3600 s ahead of the clock of this replica")


async def test_a_server_without_the_info_command_is_logged(
    fake_redis: Redis, log_lines: Callable[[], list[str]]
) -> None:
    await startup_checks.check_servers(UnpipelinedClient(fake_redis, 2, StoreMonitor(Metrics())), set())

    assert len(log_lines()) == 1


# The service


def test_the_service_logs_faults_at_startup(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=redis_server.url)

    assert '"level":"warning"' in replica.wait_for_line("set appendonly to yes")


def test_the_embedded_server_is_well_configured(data_dir: Path, start_replica: StartReplica) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert '"level":"info"' in replica.wait_for_line("the session store is Valkey")
    assert '"level":"warning"' not in replica.output
