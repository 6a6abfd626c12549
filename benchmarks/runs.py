"""The measurements. Each one returns rows for the report."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any, NamedTuple

import redis

from benchmarks.cost import bytes_per_session, measure_cost
from benchmarks.load import Measured, Target, measure
from benchmarks.machine import MissingTool, cpu_seconds, http_server, python, resident_mib
from benchmarks.peers import PEERS, Peer
from benchmarks.sessions import SESSIONS, create_session, new_session_body, pages, store_sessions, targets
from benchmarks.topologies import topologies
from service.auth.api_keys import new_key

CONNECTIONS = (1, 32, 256)
DEFAULT_CONNECTIONS = 32
STORED_SESSIONS = (1_000, 100_000, 1_000_000)
METADATA_BYTES = (64, 65, 1024)

_SAMPLED_SESSIONS = 2_000
_SESSIONS_PER_TOPOLOGY = 300
_PAGES = 9
_BARE = Target(["/fixed"])
_CREATE = Target([SESSIONS], method="POST", body=new_session_body())

_CREATE_SETTINGS: dict[str, dict[str, str]] = {
    "create, audit log off": {"SESSION_AUDIT_LOG": "off"},
    "create, caps per user and agent": {"SESSION_MAX_PER_USER": "1000000", "SESSION_MAX_PER_AGENT": "1000000"},
}
"""Creations by replicas with other settings."""

_KEY, _ENTRY = new_key("benchmark", ["read"])
_WITH_KEY = {"X-API-KEY": _KEY}
_API_KEYS = {"SESSION_API_KEYS": _ENTRY}
_ADDRESS_LIMIT = {"SESSION_RATE_PER_ADDRESS": "1000000/second"}
_BOTH_LIMITS = {**_API_KEYS, **_ADDRESS_LIMIT, "SESSION_RATE_PER_CALLER": "1000000/second"}
_READ_SETTINGS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "get 200, request log off": ({"SESSION_LOG_LEVEL": "warning"}, {}),
    "get 200, API key": (_API_KEYS, _WITH_KEY),
    "get 200, limit per address": (_ADDRESS_LIMIT, {}),
    "get 200, API key, limits per address and caller": (_BOTH_LIMITS, _WITH_KEY),
}
"""Reads from replicas with other settings: the settings, and the headers of the requests."""

Row = dict[str, Any]


class Plan(NamedTuple):
    """The Redis server, and the duration and number of the measurements."""

    redis_url: str
    seconds: float
    rounds: int

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url)

    def run(self, url: str, target: Target, connections: int = DEFAULT_CONNECTIONS) -> Measured:
        return measure(url, target, connections=connections, seconds=self.seconds)


def requests(plan: Plan, connections: Sequence[int] = CONNECTIONS) -> list[Row]:
    """Measure every request, relative to the bare handler in the same round."""
    rounds: dict[tuple[str, int], list[Row]] = {}
    with ExitStack() as stack:
        bare_url = stack.enter_context(_bare())
        url, pid = stack.enter_context(_replica(plan))
        readers = {
            name: (*stack.enter_context(_replica(plan, **settings)), headers)
            for name, (settings, headers) in _READ_SETTINGS.items()
        }
        creators = {
            name: stack.enter_context(_replica(plan, **settings)) for name, settings in _CREATE_SETTINGS.items()
        }
        single_calls_url = stack.enter_context(_single_calls(plan))
        plan.run(url, targets(url, plan.client)["get 200"])
        for _ in range(plan.rounds):
            for number in connections:
                plan.client.flushall()
                bare = plan.run(bare_url, _BARE, number)
                rows = {"bare aiohttp": _row(bare, bare)}
                for name, target in targets(url, plan.client).items():
                    rows[name] = _row_with_cost(plan, url, pid, target, number, bare)
                read = Target([f"{SESSIONS}/{create_session(url)}"])
                for name, (reader_url, reader_pid, headers) in readers.items():
                    target = read._replace(headers=headers)
                    rows[name] = _row_with_cost(plan, reader_url, reader_pid, target, number, bare)
                for name, (creator_url, creator_pid) in creators.items():
                    rows[name] = _row_with_cost(plan, creator_url, creator_pid, _CREATE, number, bare)
                single_calls = plan.run(single_calls_url, read, number)
                rows["get 200, one redis-py call per request"] = _row(single_calls, bare)
                for name, row in rows.items():
                    rounds.setdefault((name, number), []).append(row)
        resident = resident_mib(pid)
    medians = [{"name": name, "connections": number, **_medians(rows)} for (name, number), rows in rounds.items()]
    return [*medians, {"name": "replica after the run", "resident_mib": resident}]


def memory(plan: Plan) -> list[Row]:
    return [{"metadata_bytes": number, **bytes_per_session(plan.redis_url, number)} for number in METADATA_BYTES]


def stored_sessions(plan: Plan) -> list[Row]:
    """Measure requests for random sessions, lists and health, with a growing number of stored sessions."""
    results: list[Row] = []
    client = plan.client
    client.flushall()
    session_ids: list[str] = []
    with _bare() as bare_url, _replica(plan) as (url, pid):
        for number in STORED_SESSIONS:
            session_ids += store_sessions(client, number - len(session_ids))
            sample = random.choices(session_ids, k=_SAMPLED_SESSIONS)
            for name, target, connections in [*_session_requests(sample), *_overview_requests(url)]:
                rows = []
                for _ in range(plan.rounds):
                    bare = plan.run(bare_url, _BARE, connections)
                    rows.append(_row_with_cost(plan, url, pid, target, connections, bare))
                results.append({"name": name, "stored": number, **_medians(rows)})
    client.flushall()
    return results


def redis_topologies(plan: Plan) -> list[Row]:
    """Measure reads, heartbeats and creations with each Redis topology, for sessions in many shards."""
    rounds: dict[tuple[str, str], list[Row]] = {}
    with topologies() as settings_by_topology, ExitStack() as stack:
        bare_url = stack.enter_context(_bare())
        replicas = {name: stack.enter_context(_service(settings)) for name, settings in settings_by_topology.items()}
        session_ids = {
            topology: [create_session(url) for _ in range(_SESSIONS_PER_TOPOLOGY)]
            for topology, (url, _) in replicas.items()
        }
        for _ in range(plan.rounds):
            bare = plan.run(bare_url, _BARE)
            for topology, (url, pid) in replicas.items():
                create = ("create", _CREATE, DEFAULT_CONNECTIONS)
                for name, target, connections in [*_session_requests(session_ids[topology]), create]:
                    cpu_before = cpu_seconds(pid)
                    measured = plan.run(url, target, connections)
                    cpu_us = (cpu_seconds(pid) - cpu_before) / measured.requests * 1e6
                    row = _row(measured, bare) | {"replica_cpu_us": cpu_us}
                    rounds.setdefault((name, topology), []).append(row)
    return [{"name": name, "topology": topology, **_medians(rows)} for (name, topology), rows in rounds.items()]


def peers(plan: Plan) -> list[Row]:
    """Measure reads of one session by other servers and by this service, alternately."""
    return [_compare(plan, peer) for peer in PEERS]


def _compare(plan: Plan, peer: Peer) -> Row:
    try:
        peer.install()
    except MissingTool as error:
        return {"name": peer.name, "absent": str(error)}
    environment = {"REDIS_URL": plan.redis_url, **peer.environment}
    server = http_server(peer.command, peer.probe_path, environment=environment, folder=peer.folder)
    with server as (peer_url, _), _replica(plan) as (url, _):
        theirs, ours = peer.create_session(peer_url), Target([f"{SESSIONS}/{create_session(url)}"])
        plan.run(peer_url, theirs)
        pairs = [(plan.run(peer_url, theirs), plan.run(url, ours)) for _ in range(plan.rounds)]
    return {
        "name": peer.name,
        "per_second": median(their.per_second for their, _ in pairs),
        "ours_per_second": median(our.per_second for _, our in pairs),
        "ours_times_theirs": median(our.per_second / their.per_second for their, our in pairs),
    }


def _session_requests(session_ids: list[str]) -> list[tuple[str, Target, int]]:
    reads = Target([f"{SESSIONS}/{session_id}" for session_id in session_ids])
    heartbeats = Target([f"{SESSIONS}/{session_id}/heartbeat" for session_id in session_ids], method="POST")
    return [("get 200", reads, DEFAULT_CONNECTIONS), ("heartbeat", heartbeats, DEFAULT_CONNECTIONS)]


def _overview_requests(url: str) -> list[tuple[str, Target, int]]:
    """The first pages of a list, in order, and health, whose counts are at most a second old."""
    return [("list, 100 per page", Target(pages(url, _PAGES)), 1), ("health", Target([f"{SESSIONS}/health"]), 1)]


def _row_with_cost(plan: Plan, url: str, pid: int, target: Target, connections: int, bare: Measured) -> Row:
    measurements: list[Measured] = []

    def run() -> int:
        measurements.append(plan.run(url, target, connections))
        return measurements[0].requests

    cost = measure_cost(run, pid, plan.client)
    return {**_row(measurements[0], bare), **cost._asdict()}


def _row(measured: Measured, bare: Measured) -> Row:
    return {
        "per_second": measured.per_second,
        "share_of_bare": measured.per_second / bare.per_second,
        "p50_ms": measured.p50_ms,
        "p99_ms": measured.p99_ms,
        "p99_times_bare": measured.p99_ms / bare.p99_ms,
    }


def _medians(rows: list[Row]) -> Row:
    """The median of each column, and the lowest and the highest share."""
    medians: Row = {name: median(row[name] for row in rows) for name in rows[0]}
    shares = [row["share_of_bare"] for row in rows]
    return {**medians, "share_least": min(shares), "share_greatest": max(shares)}


@contextmanager
def _bare() -> Iterator[str]:
    with http_server(python("-m", "benchmarks.bare"), "/fixed") as (url, _):
        yield url


@contextmanager
def _replica(plan: Plan, **settings: str) -> Iterator[tuple[str, int]]:
    with _service({"REDIS_URL": plan.redis_url, **settings}) as server:
        yield server


@contextmanager
def _service(environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    with http_server(python("-m", "service"), "/readyz", environment=environment) as server:
        yield server


@contextmanager
def _single_calls(plan: Plan) -> Iterator[str]:
    command = python("-m", "benchmarks.single_calls")
    with http_server(command, "/readyz", environment={"REDIS_URL": plan.redis_url}) as (url, _):
        yield url
