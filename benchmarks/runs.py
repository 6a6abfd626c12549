"""Measure requests, memory, stored sessions, kinds of Redis and other servers."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any, NamedTuple

import redis

from benchmarks.cost import bytes_per_session, costed
from benchmarks.kinds import kinds
from benchmarks.load import Measured, Target, measure
from benchmarks.machine import MissingTool, cpu_seconds, http_server, python, resident_mib
from benchmarks.peers import PEERS
from benchmarks.sessions import SESSIONS, new_session_body, opened, pages, stored, targets
from service.auth.api_keys import new_key

CONNECTIONS = (1, 32, 256)
USUAL_CONNECTIONS = 32
STORED = (1_000, 100_000, 1_000_000)
METADATA_BYTES = (64, 65, 1024)
_CREATE_VARIANTS: dict[str, dict[str, str]] = {
    "create, audit log off": {"SESSION_AUDIT_LOG": "off"},
    "create, caps per user and agent": {"SESSION_MAX_PER_USER": "1000000", "SESSION_MAX_PER_AGENT": "1000000"},
}
_REQUESTED_SESSIONS = 2_000
_PAGES = 9
_SESSIONS_PER_KIND = 300
_BARE = Target(["/fixed"])
_CREATION = ("create", Target([SESSIONS], method="POST", body=new_session_body()), USUAL_CONNECTIONS)

_KEY, _ENTRY = new_key("benchmark", ["read"])
_KEYED, _WITH_KEY = {"SESSION_API_KEYS": _ENTRY}, {"X-API-KEY": _KEY}
_LIMITED = {"SESSION_RATE_PER_ADDRESS": "1000000/second"}
_LIMITED_TWICE = {**_KEYED, **_LIMITED, "SESSION_RATE_PER_CALLER": "1000000/second"}
_READ_VARIANTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "get 200, request log off": ({"SESSION_LOG_LEVEL": "warning"}, {}),
    "get 200, API key": (_KEYED, _WITH_KEY),
    "get 200, limit per address": (_LIMITED, {}),
    "get 200, API key, limits per address and caller": (_LIMITED_TWICE, _WITH_KEY),
}
"""Settings of replicas with another configuration, and the request headers that they need."""

Row = dict[str, Any]


class Plan(NamedTuple):
    """The Redis to use, the duration of a run in seconds, and the number of rounds."""

    redis_url: str
    seconds: float
    rounds: int

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url)

    def run(self, url: str, target: Target, connections: int = USUAL_CONNECTIONS) -> Measured:
        return measure(url, target, connections=connections, seconds=self.seconds)


def verbs(plan: Plan, numbers: Sequence[int] = CONNECTIONS) -> list[Row]:
    """Measure each request with these numbers of connections, relative to the bare handler in the same round."""
    rounds: dict[tuple[str, int], list[Row]] = {}
    with ExitStack() as stack:
        bare = stack.enter_context(_bare())
        url, pid = stack.enter_context(_replica(plan))
        reading_variants = {
            name: (*stack.enter_context(_replica(plan, **settings)), headers)
            for name, (settings, headers) in _READ_VARIANTS.items()
        }
        creating_variants = {
            name: stack.enter_context(_replica(plan, **settings)) for name, settings in _CREATE_VARIANTS.items()
        }
        single_calls = stack.enter_context(_single_calls(plan))
        plan.run(url, targets(url, plan.client)["get 200"])
        for _ in range(plan.rounds):
            for connections in numbers:
                plan.client.flushall()
                alone = plan.run(bare, _BARE, connections)
                rounds.setdefault(("bare aiohttp", connections), []).append(_row(alone, alone))
                for name, target in targets(url, plan.client).items():
                    row = _costed(plan, url, pid, target, connections, alone)
                    rounds.setdefault((name, connections), []).append(row)
                reading = Target([f"{SESSIONS}/{opened(url)}"])
                for name, (other_url, other_pid, headers) in reading_variants.items():
                    target = reading._replace(headers=headers)
                    row = _costed(plan, other_url, other_pid, target, connections, alone)
                    rounds.setdefault((name, connections), []).append(row)
                for name, (other_url, other_pid) in creating_variants.items():
                    row = _costed(plan, other_url, other_pid, _CREATION[1], connections, alone)
                    rounds.setdefault((name, connections), []).append(row)
                row = _row(plan.run(single_calls, reading, connections), alone)
                rounds.setdefault(("get 200, one redis-py call per request", connections), []).append(row)
        resident = resident_mib(pid)
    rows = [{"what": name, "connections": number, **_middle(found)} for (name, number), found in rounds.items()]
    return [*rows, {"what": "replica after the run", "resident_mib": resident}]


def memory(plan: Plan) -> list[Row]:
    return [{"metadata_bytes": number, **bytes_per_session(plan.redis_url, number)} for number in METADATA_BYTES]


def stored_sessions(plan: Plan) -> list[Row]:
    """Measure reads and heartbeats of random sessions, lists and counts, with a growing number of stored sessions."""
    rows: list[Row] = []
    client = plan.client
    client.flushall()
    session_ids: list[str] = []
    with _bare() as bare, _replica(plan) as (url, pid):
        for number in STORED:
            session_ids += stored(client, number - len(session_ids))
            drawn = random.choices(session_ids, k=_REQUESTED_SESSIONS)
            for name, target, connections in [*_of_many(drawn), *_of_all(url)]:
                found = []
                for _ in range(plan.rounds):
                    alone = plan.run(bare, _BARE, connections)
                    found.append(_costed(plan, url, pid, target, connections, alone))
                rows.append({"what": name, "stored": number, **_middle(found)})
    client.flushall()
    return rows


def kinds_of_servers(plan: Plan) -> list[Row]:
    """Measure reads, heartbeats and creations on each kind of Redis, with sessions in many shards."""
    rounds: dict[tuple[str, str], list[Row]] = {}
    with kinds() as environments, ExitStack() as stack:
        bare = stack.enter_context(_bare())
        servers = {kind: stack.enter_context(_served(settings)) for kind, settings in environments.items()}
        session_ids = {kind: [opened(url) for _ in range(_SESSIONS_PER_KIND)] for kind, (url, _) in servers.items()}
        for _ in range(plan.rounds):
            alone = plan.run(bare, _BARE)
            for kind, (url, pid) in servers.items():
                for name, target, connections in [*_of_many(session_ids[kind]), _CREATION]:
                    before = cpu_seconds(pid)
                    found = plan.run(url, target, connections)
                    spent = {"replica_cpu_us": (cpu_seconds(pid) - before) / found.requests * 1e6}
                    rounds.setdefault((name, kind), []).append(_row(found, alone) | spent)
    return [{"what": name, "kind": kind, **_middle(found)} for (name, kind), found in rounds.items()]


def peers(plan: Plan) -> list[Row]:
    """Measure reading one session with other servers and with this service, alternately."""
    return [row for peer in PEERS for row in [_beside(plan, peer)]]


def _beside(plan: Plan, peer: Any) -> Row:
    try:
        peer.install()
    except MissingTool as error:
        return {"what": peer.name, "absent": str(error)}
    environment = {"REDIS_URL": plan.redis_url, **peer.environment}
    server = http_server(peer.command, peer.probe_path, environment=environment, folder=peer.folder)
    with server as (peer_url, _), _replica(plan) as (url, _):
        theirs, ours = peer.open_session(peer_url), Target([f"{SESSIONS}/{opened(url)}"])
        plan.run(peer_url, theirs)
        found = [(plan.run(peer_url, theirs), plan.run(url, ours)) for _ in range(plan.rounds)]
    times = [our.per_second / their.per_second for their, our in found]
    return {
        "what": peer.name,
        "per_second": median(their.per_second for their, _ in found),
        "ours_per_second": median(our.per_second for _, our in found),
        "ours_times_theirs": median(times),
    }


def _of_many(session_ids: list[str]) -> list[tuple[str, Target, int]]:
    reads = Target([f"{SESSIONS}/{session_id}" for session_id in session_ids])
    heartbeats = Target([f"{SESSIONS}/{session_id}/heartbeat" for session_id in session_ids], method="POST")
    return [("get 200", reads, USUAL_CONNECTIONS), ("heartbeat", heartbeats, USUAL_CONNECTIONS)]


def _of_all(url: str) -> list[tuple[str, Target, int]]:
    """The first pages of a list, and health, whose counts are cached for a second."""
    return [("list, 100 per page", Target(pages(url, _PAGES)), 1), ("health", Target([f"{SESSIONS}/health"]), 1)]


def _costed(plan: Plan, url: str, pid: int, target: Target, connections: int, alone: Measured) -> Row:
    runs: list[Measured] = []

    def run() -> int:
        runs.append(plan.run(url, target, connections))
        return runs[0].requests

    cost = costed(run, pid, plan.client)
    return {**_row(runs[0], alone), **cost._asdict()}


def _row(measured: Measured, alone: Measured) -> Row:
    return {
        "per_second": measured.per_second,
        "share_of_bare": measured.per_second / alone.per_second,
        "p50_ms": measured.p50_ms,
        "p99_ms": measured.p99_ms,
        "p99_times_bare": measured.p99_ms / alone.p99_ms,
    }


def _middle(rows: list[Row]) -> Row:
    """Return the median of each column, and the lowest and highest share."""
    middle: Row = {name: median(row[name] for row in rows) for name in rows[0]}
    shares = [row["share_of_bare"] for row in rows]
    return {**middle, "share_least": min(shares), "share_greatest": max(shares)}


@contextmanager
def _bare() -> Iterator[str]:
    with http_server(python("-m", "benchmarks.bare"), "/fixed") as (url, _):
        yield url


@contextmanager
def _replica(plan: Plan, **settings: str) -> Iterator[tuple[str, int]]:
    with _served({"REDIS_URL": plan.redis_url, **settings}) as server:
        yield server


@contextmanager
def _served(environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    with http_server(python("-m", "service"), "/readyz", environment=environment) as server:
        yield server


@contextmanager
def _single_calls(plan: Plan) -> Iterator[str]:
    command = python("-m", "benchmarks.single_calls")
    with http_server(command, "/readyz", environment={"REDIS_URL": plan.redis_url}) as (url, _):
        yield url
