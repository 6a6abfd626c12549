"""The store against a model of section 2 of the design: random calls at random moments, each answer and key compared.

A machine creates sessions, lets time pass for them (`aging`) up to, onto and beyond the instants where something
changes, and calls every verb on sessions that live, have ended, were deleted or never were. What the store answers
and what Redis then holds must be what `model` says of the same instant of Redis's clock.

That clock goes on by real milliseconds. A session that is answered says the instant it was judged at, so it is
compared exactly. A refusal does not, so the clock is read before and after the call, and the refusal must be the
model's of one of these two instants (Redis itself keeps a key through the millisecond of its end, hence `- 1`).
All sessions lie in one shard, so that each could disturb the others.

The run is the same every time. For a longer one with other sequences, say how many: `MODEL_EXAMPLES=2000 pytest
tests/test_model.py` (70 steps each, a minute for 300).
"""

import asyncio
import logging
import os
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from service.errors import ServiceError
from service.observability.metrics import Metrics
from service.redis_client.connector import Connector
from service.redis_client.factory import redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Pipeline
from service.sessions.keys import Keys
from service.sessions.scripts import SCRIPTS
from service.sessions.session import Session
from service.settings import Settings
from service.settings.sessions import TimeoutConfig
from tests import model
from tests.aging import age
from tests.conftest import create_session, like_of_the_service, store_on
from tests.model import Answer, Deleted, Life, Outcome, Refused, SessionFields
from tests.redis_server import RedisServer

MINUTE_MS = 60_000
RETENTION_MS = 20 * MINUTE_MS

EXAMPLES = os.environ.get("MODEL_EXAMPLES")

RUN = settings(
    max_examples=int(EXAMPLES or 60),
    stateful_step_count=70,
    derandomize=EXAMPLES is None,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

_T = TypeVar("_T")


class Passing(NamedTuple):
    """Time that passes for a session until the moment of a name in its life, and somewhat before or beyond it."""

    until: str
    offset_ms: int


NO_TIME = Passing("created_at_ms", 0)
ALL_ITS_TIME = Passing("expires_at_ms", 0)

timeout_minutes = st.sampled_from([5, 10, 15, 30, 0.5, 7.25]) | st.integers(1, 60)
max_duration_minutes = st.sampled_from([5, 15, 30, 45, 60, 720]) | st.integers(1, 2880)
warning_minutes = st.sampled_from([1, 5, 10, 0.5]) | st.integers(1, 60)
timeouts = st.builds(TimeoutConfig, timeout_minutes, st.booleans(), max_duration_minutes, warning_minutes)
changes = st.fixed_dictionaries(
    {},
    optional={
        "timeout_minutes": timeout_minutes,
        "auto_renew": st.booleans(),
        "max_duration_minutes": max_duration_minutes,
        "warning_threshold_minutes": warning_minutes,
    },
)
people = st.sampled_from([str(uuid.UUID(int=number)) for number in range(3)])
metadata = st.sampled_from([b"{}", b'{"a":[]}', b'{"n":9007199254740993}', '{"é":"\U0001f600"}'.encode()])
patches = st.dictionaries(
    st.sampled_from(["a", "n", "é"]),
    st.none()
    | st.sampled_from([1, 2**64 - 1, 0.5, "\U0001f600", [None, {}], {"a": None, "b": []}, {"b": {"c": None}}]),
)

a_while = st.builds(Passing, st.just("last_activity_ms"), st.integers(1, 4 * MINUTE_MS))
around_the_warning = st.builds(Passing, st.just("warned_at_ms"), st.sampled_from([-500, 0, 1]))
short_of_the_end = st.builds(Passing, st.just("expires_at_ms"), st.sampled_from([-500, -10_000, -MINUTE_MS]))
within_life = st.just(NO_TIME) | a_while | around_the_warning | short_of_the_end
beyond_life = st.just(NO_TIME) | st.builds(
    Passing, st.sampled_from(["maximum_ms", "forgotten_at_ms"]), st.sampled_from([-500, 0])
)
members_with_an_end = st.sampled_from([("renewed_at_ms", "timeout_minutes"), ("created_at_ms", "max_duration_minutes")])
never_issued = st.uuids(version=4).map(str) | st.sampled_from(["", "none", "0" * 36, "{x}"])
ways_to_end = st.sampled_from(["_delete", "_expire", "_expire", "_lose"])
verb = st.sampled_from(["get", "heartbeat", "renew", "update_timeout", "update_metadata", "delete"])
verbs = st.lists(verb, min_size=1, max_size=4)


class SessionsInRedis(RuleBasedStateMachine):
    """Sessions of a real store beside their lives in the model. `None` is the life of one that was deleted."""

    sessions: Bundle[str] = Bundle("sessions")
    ended: Bundle[str] = Bundle("ended")

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._redis = redis_py_client(url, 2)
        self._keys = Keys("")
        self._redis_client = self._run(_pipeline_to(self._redis))
        self._store = store_on(
            self._redis_client, Settings(session_tombstone_retention_minutes=RETENTION_MS / MINUTE_MS)
        )
        self._lives: dict[str, Life | None] = {}
        self._run(self._redis.flushall())

    def teardown(self) -> None:
        try:
            self._every_session_is_stored_as_the_model_says()
            self._every_lookup_lists_what_was_not_deleted()
        finally:
            self._run(self._redis_client.aclose())
            self._run(self._redis.aclose())
            self._runner.close()

    @initialize(target=sessions, agent=people, user=people, timeout=timeouts)
    def begin(self, agent: str, user: str, timeout: TimeoutConfig) -> str:
        return self._begin(agent, user, timeout, b"{}")

    @rule(target=sessions, agent=people, user=people, timeout=timeouts, metadata=metadata)
    def create(self, agent: str, user: str, timeout: TimeoutConfig, metadata: bytes) -> str:
        return self._begin(agent, user, timeout, metadata)

    @rule(session_id=sessions, passing=within_life)
    def get(self, session_id: str, passing: Passing) -> None:
        self._let_pass(session_id, passing)
        self._compare(session_id, self._store.get(session_id), model.get)

    @rule(session_id=sessions, passing=within_life)
    def heartbeat(self, session_id: str, passing: Passing) -> None:
        self._let_pass(session_id, passing)
        self._compare(session_id, self._store.heartbeat(session_id), model.heartbeat)

    @rule(session_id=sessions, passing=within_life)
    def renew(self, session_id: str, passing: Passing) -> None:
        self._let_pass(session_id, passing)
        self._compare(session_id, self._store.renew(session_id), model.renew)

    @rule(session_id=sessions, passing=within_life, changes=changes)
    def update_timeout(self, session_id: str, passing: Passing, changes: dict[str, float | bool]) -> None:
        self._let_pass(session_id, passing)
        self._compare_configure(session_id, changes)

    @rule(session_id=sessions, passing=within_life, patch=patches)
    def update_metadata(self, session_id: str, passing: Passing, patch: dict[str, Any]) -> None:
        self._let_pass(session_id, passing)
        self._compare_annotate(session_id, patch)

    @rule(
        session_id=sessions, member=members_with_an_end, minutes=st.integers(1, 4), offset_ms=st.sampled_from([-500, 0])
    )
    def shorten_to_about_now(self, session_id: str, member: tuple[str, str], minutes: int, offset_ms: int) -> None:
        counted_from, name = member
        self._let_pass(session_id, Passing(counted_from, minutes * MINUTE_MS + offset_ms))
        self._compare_configure(session_id, {name: minutes})

    @rule(target=ended, session_id=consumes(sessions), passing=within_life, way=ways_to_end, verbs=verbs)
    def end(self, session_id: str, passing: Passing, way: str, verbs: list[str]) -> str:
        self._let_pass(session_id, passing)
        getattr(self, way)(session_id)
        self._compare_each(verbs, session_id)
        return session_id

    @precondition(lambda self: self.bundle("sessions"))
    @rule(session_id=ended, passing=beyond_life, verbs=verbs)
    def call_one_that_ended(self, session_id: str, passing: Passing, verbs: list[str]) -> None:
        self._let_pass(session_id, passing)
        self._compare_each(verbs, session_id)

    @precondition(lambda self: self.bundle("sessions"))
    @rule(session_id=never_issued, verb=verb)
    def call_one_that_never_was(self, session_id: str, verb: str) -> None:
        self._compare_any(verb, session_id)

    @precondition(lambda self: self.bundle("sessions"))
    @rule()
    def forget_the_scripts(self) -> None:
        self._run(self._redis.script_flush())

    @invariant()
    def what_is_stored_is_what_the_model_says(self) -> None:
        self._every_session_is_stored_as_the_model_says()

    def _begin(self, agent: str, user: str, timeout: TimeoutConfig, metadata: bytes) -> str:
        asked_ms, session, answered_ms = self._timed(
            create_session(self._store, agent_id=agent, user_id=user, config=timeout._asdict(), metadata=metadata)
        )
        now_ms = session.read_at_ms
        life = Life(session.id, agent, user, metadata, now_ms, now_ms, now_ms, timeout, RETENTION_MS)
        assert asked_ms <= now_ms <= answered_ms
        assert session == model.seen(life, now_ms)
        assert session.id not in self._lives
        self._lives[session.id] = life
        return session.id

    def _delete(self, session_id: str) -> None:
        self._compare(session_id, self._store.delete(session_id), model.delete)

    def _expire(self, session_id: str) -> None:
        self._let_pass(session_id, ALL_ITS_TIME)

    def _lose(self, session_id: str) -> None:
        if self._run(self._redis.delete(self._keys.session(session_id))):
            self._lives[session_id] = replace(self._living(session_id), is_lost=True)

    def _compare_each(self, verbs: list[str], session_id: str) -> None:
        for verb in verbs:
            self._compare_any(verb, session_id)

    def _compare_any(self, verb: str, session_id: str) -> None:
        if verb == "update_timeout":
            self._compare_configure(session_id, {"timeout_minutes": 30})
        elif verb == "update_metadata":
            self._compare_annotate(session_id, {"a": 1})
        else:
            self._compare(session_id, getattr(self._store, verb)(session_id), getattr(model, verb))

    def _compare_configure(self, session_id: str, changes: dict[str, float | bool]) -> None:
        call = self._store.update_timeout(session_id, changes)
        self._compare(session_id, call, lambda life, now_ms: model.update_timeout(life, now_ms, changes))

    def _compare_annotate(self, session_id: str, patch: dict[str, Any]) -> None:
        call = self._store.update_metadata(session_id, patch)
        self._compare(session_id, call, lambda life, now_ms: model.update_metadata(life, now_ms, patch))

    def _compare(self, session_id: str, call: Awaitable[Session | None], verb: Callable[[Life, int], Outcome]) -> None:
        """Make the call: its answer is the model's, and its life goes on as the model says."""
        asked_ms, answer, answered_ms = self._timed(answer_to(call))
        life = self._lives.get(session_id)
        if life is None:
            assert answer == model.unknown(session_id)
        elif isinstance(answer, Session):
            assert asked_ms <= answer.read_at_ms <= answered_ms
            expected, self._lives[session_id] = verb(life, answer.read_at_ms)
            assert answer == expected
            assert answer.is_near_expiration is model.is_near_expiration(self._living(session_id), answer.read_at_ms)
        else:
            outcomes = [verb(life, now_ms) for now_ms in (asked_ms - 1, answered_ms)]
            assert answer in [expected for expected, _ in outcomes]
            self._lives[session_id] = None if isinstance(answer, Deleted) else life

    def _let_pass(self, session_id: str, passing: Passing) -> None:
        life = self._lives[session_id]
        if life is not None:
            until_ms = getattr(life, passing.until) + passing.offset_ms
            by_ms = max(0, until_ms - self._run(self._clock()))
            if by_ms:
                self._run(age(self._redis, session_id, by_ms))
            self._lives[session_id] = model.aged(life, by_ms)

    def _living(self, session_id: str) -> Life:
        life = self._lives[session_id]
        assert life is not None
        return life

    def _every_session_is_stored_as_the_model_says(self) -> None:
        read_ms, found, done_ms = self._timed(self._stored())
        for (session_id, life), stored in zip(self._lives.items(), found, strict=True):
            assert stored in [model.stored(life, now_ms) for now_ms in (read_ms - 1, done_ms)], session_id

    def _every_lookup_lists_what_was_not_deleted(self) -> None:
        expected: dict[str, set[str]] = {}
        for life in filter(None, self._lives.values()):
            expected.setdefault(self._keys.user(life.user_id), set()).add(life.id)
            expected.setdefault(self._keys.agent(life.agent_id), set()).add(life.id)
        assert self._run(self._owner_index()) == expected

    async def _stored(self) -> list[SessionFields]:
        async with self._redis.pipeline(transaction=True) as pipeline:
            for session_id in self._lives:
                keys = self._keys.of(session_id)
                pipeline.hgetall(keys.session)
                pipeline.pexpiretime(keys.session)
                pipeline.hgetall(keys.tombstone)
                pipeline.pexpiretime(keys.tombstone)
                pipeline.zscore(keys.expiry, session_id)
                pipeline.zscore(keys.warning, session_id)
                pipeline.zscore(keys.created, session_id)
            replies = await pipeline.execute()
        return [SessionFields(*replies[start : start + 7]) for start in range(0, len(replies), 7)]

    async def _owner_index(self) -> dict[str, set[str]]:
        owner_indexes = [*await self._redis.keys(self._keys.user("*")), *await self._redis.keys(self._keys.agent("*"))]
        return {_text(key): {_text(listed) for listed in await self._redis.zrange(key, 0, -1)} for key in owner_indexes}

    async def _clock(self) -> int:
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _run(self, call: Awaitable[_T]) -> _T:
        return self._runner.run(_awaited(call))

    def _timed(self, call: Awaitable[_T]) -> tuple[int, _T, int]:
        """What a call gives, and the instants of Redis's clock just before and just after it."""
        return self._run(self._between_two_instants(call))

    async def _between_two_instants(self, call: Awaitable[_T]) -> tuple[int, _T, int]:
        return await self._clock(), await call, await self._clock()


async def _awaited(call: Awaitable[_T]) -> _T:
    return await call


def _text(reply: Any) -> str:
    return str(reply, "ascii")


def new_id_in_one_shard(*_: str) -> str:
    return "ab" + str(uuid.uuid4())[2:]


async def _pipeline_to(redis: Redis) -> Pipeline:
    return Pipeline(Connector(like_of_the_service(redis), SCRIPTS), 2, StoreMonitor(Metrics()), SCRIPTS)


async def answer_to(call: Awaitable[Session | None]) -> Answer:
    try:
        session = await call
    except ServiceError as refusal:
        return Refused(type(refusal), refusal.facts)
    return Deleted() if session is None else session


@pytest.mark.timeout(300 + int(EXAMPLES or 0))
def test_the_store_does_what_the_model_says(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr("service.sessions.creation.new_session_id", new_id_in_one_shard)
    machine = cast(type[SessionsInRedis], partial(SessionsInRedis, redis_server.admin_url))
    run_state_machine_as_test(machine, settings=RUN)
