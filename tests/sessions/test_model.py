"""Compare the store with a model of the lifecycle rules, over random calls at random times.

A state machine creates sessions, ages them to times at which something changes, and calls every verb. The result and
the data in Redis must equal those of the model at the same time of the server.

A returned session contains the time at which it was read. A failure does not, so it must equal that of the model just
before or just after the call. Redis keeps a key during the millisecond of its expiry, hence `- 1`.

All sessions are in one shard, so that each could affect the others. The default run always uses the same sequences.
`MODEL_EXAMPLES=2000 pytest -m long tests/sessions/test_model.py` runs random ones.
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
from tests.aging import age
from tests.conftest import create_session, new_session_store, service_connection_factory
from tests.redis_server import RedisServer
from tests.sessions import model
from tests.sessions.model import Deleted, Failure, ModelSession, Outcome, Result, StoredData

MINUTE_MS = 60_000
RETENTION_MS = 20 * MINUTE_MS

EXAMPLES = os.environ.get("MODEL_EXAMPLES")

RUN = settings(
    stateful_step_count=70,
    derandomize=EXAMPLES is None,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

_T = TypeVar("_T")


class Moment(NamedTuple):
    """A time to age a session to: an attribute of ModelSession, and an offset to it."""

    attribute: str
    offset_ms: int


CREATION = Moment("created_at_ms", 0)
EXPIRY = Moment("expires_at_ms", 0)

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
owner_ids = st.sampled_from([str(uuid.UUID(int=number)) for number in range(3)])
metadata = st.sampled_from([b"{}", b'{"a":[]}', b'{"n":9007199254740993}', '{"é":"\U0001f600"}'.encode()])
patches = st.dictionaries(
    st.sampled_from(["a", "n", "é"]),
    st.none()
    | st.sampled_from([1, 2**64 - 1, 0.5, "\U0001f600", [None, {}], {"a": None, "b": []}, {"b": {"c": None}}]),
)

active_recently = st.builds(Moment, st.just("last_activity_ms"), st.integers(1, 4 * MINUTE_MS))
around_warning = st.builds(Moment, st.just("warns_at_ms"), st.sampled_from([-500, 0, 1]))
before_expiry = st.builds(Moment, st.just("expires_at_ms"), st.sampled_from([-500, -10_000, -MINUTE_MS]))
until_expiry = st.just(CREATION) | active_recently | around_warning | before_expiry
after_expiry = st.just(CREATION) | st.builds(
    Moment, st.sampled_from(["max_duration_at_ms", "tombstone_expires_at_ms"]), st.sampled_from([-500, 0])
)
expiring_members = st.sampled_from([("renewed_at_ms", "timeout_minutes"), ("created_at_ms", "max_duration_minutes")])
unknown_ids = st.uuids(version=4).map(str) | st.sampled_from(["", "none", "0" * 36, "{x}"])
endings = st.sampled_from(["_delete", "_expire", "_expire", "_lose"])
verb = st.sampled_from(["get", "heartbeat", "renew", "update_timeout", "update_metadata", "delete"])
verbs = st.lists(verb, min_size=1, max_size=4)


class SessionsInRedis(RuleBasedStateMachine):
    """Sessions of a store, compared with those of the model. A deleted session is None in the model."""

    sessions: Bundle[str] = Bundle("sessions")
    ended: Bundle[str] = Bundle("ended")

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._redis = redis_py_client(url, 10)
        self._keys = Keys("")
        self._redis_client = self._run(_pipeline_to(self._redis))
        self._store = new_session_store(
            self._redis_client, Settings(session_tombstone_retention_minutes=RETENTION_MS / MINUTE_MS)
        )
        self._models: dict[str, ModelSession | None] = {}
        self._run(self._redis.flushall())

    def teardown(self) -> None:
        try:
            self._assert_stored_data()
            self._assert_owner_indexes()
        finally:
            self._run(self._redis_client.aclose())
            self._run(self._redis.aclose())
            self._runner.close()

    @initialize(target=sessions, agent=owner_ids, user=owner_ids, timeout=timeouts)
    def create_first(self, agent: str, user: str, timeout: TimeoutConfig) -> str:
        return self._create(agent, user, timeout, b"{}")

    @rule(target=sessions, agent=owner_ids, user=owner_ids, timeout=timeouts, metadata=metadata)
    def create(self, agent: str, user: str, timeout: TimeoutConfig, metadata: bytes) -> str:
        return self._create(agent, user, timeout, metadata)

    @rule(session_id=sessions, moment=until_expiry)
    def get(self, session_id: str, moment: Moment) -> None:
        self._age_to(session_id, moment)
        self._compare(session_id, self._store.get(session_id), model.get)

    @rule(session_id=sessions, moment=until_expiry)
    def heartbeat(self, session_id: str, moment: Moment) -> None:
        self._age_to(session_id, moment)
        self._compare(session_id, self._store.heartbeat(session_id), model.heartbeat)

    @rule(session_id=sessions, moment=until_expiry)
    def renew(self, session_id: str, moment: Moment) -> None:
        self._age_to(session_id, moment)
        self._compare(session_id, self._store.renew(session_id), model.renew)

    @rule(session_id=sessions, moment=until_expiry, changes=changes)
    def update_timeout(self, session_id: str, moment: Moment, changes: dict[str, float | bool]) -> None:
        self._age_to(session_id, moment)
        self._compare_update_timeout(session_id, changes)

    @rule(session_id=sessions, moment=until_expiry, patch=patches)
    def update_metadata(self, session_id: str, moment: Moment, patch: dict[str, Any]) -> None:
        self._age_to(session_id, moment)
        self._compare_update_metadata(session_id, patch)

    @rule(session_id=sessions, member=expiring_members, minutes=st.integers(1, 4), offset_ms=st.sampled_from([-500, 0]))
    def shorten_timeout_to_about_now(
        self, session_id: str, member: tuple[str, str], minutes: int, offset_ms: int
    ) -> None:
        attribute, name = member
        self._age_to(session_id, Moment(attribute, minutes * MINUTE_MS + offset_ms))
        self._compare_update_timeout(session_id, {name: minutes})

    @rule(target=ended, session_id=consumes(sessions), moment=until_expiry, ending=endings, verbs=verbs)
    def end(self, session_id: str, moment: Moment, ending: str, verbs: list[str]) -> str:
        self._age_to(session_id, moment)
        getattr(self, ending)(session_id)
        self._compare_each(verbs, session_id)
        return session_id

    @precondition(lambda self: self.bundle("sessions"))
    @rule(session_id=ended, moment=after_expiry, verbs=verbs)
    def call_ended_session(self, session_id: str, moment: Moment, verbs: list[str]) -> None:
        self._age_to(session_id, moment)
        self._compare_each(verbs, session_id)

    @precondition(lambda self: self.bundle("sessions"))
    @rule(session_id=unknown_ids, verb=verb)
    def call_unknown_session(self, session_id: str, verb: str) -> None:
        self._compare_any(verb, session_id)

    @precondition(lambda self: self.bundle("sessions"))
    @rule()
    def flush_scripts(self) -> None:
        self._run(self._redis.script_flush())

    @invariant()
    def stored_data_matches_the_model(self) -> None:
        self._assert_stored_data()

    def _create(self, agent: str, user: str, timeout: TimeoutConfig, metadata: bytes) -> str:
        before_ms, session, after_ms = self._timed(
            create_session(self._store, agent_id=agent, user_id=user, config=timeout._asdict(), metadata=metadata)
        )
        now_ms = session.read_at_ms
        expected = ModelSession(session.id, agent, user, metadata, now_ms, now_ms, now_ms, timeout, RETENTION_MS)
        assert before_ms <= now_ms <= after_ms
        assert session == model.as_session(expected, now_ms)
        assert session.id not in self._models
        self._models[session.id] = expected
        return session.id

    def _delete(self, session_id: str) -> None:
        self._compare(session_id, self._store.delete(session_id), model.delete)

    def _expire(self, session_id: str) -> None:
        self._age_to(session_id, EXPIRY)

    def _lose(self, session_id: str) -> None:
        if self._run(self._redis.delete(self._keys.session(session_id))):
            self._models[session_id] = replace(self._model(session_id), is_lost=True)

    def _compare_each(self, verbs: list[str], session_id: str) -> None:
        for verb in verbs:
            self._compare_any(verb, session_id)

    def _compare_any(self, verb: str, session_id: str) -> None:
        if verb == "update_timeout":
            self._compare_update_timeout(session_id, {"timeout_minutes": 30})
        elif verb == "update_metadata":
            self._compare_update_metadata(session_id, {"a": 1})
        else:
            self._compare(session_id, getattr(self._store, verb)(session_id), getattr(model, verb))

    def _compare_update_timeout(self, session_id: str, changes: dict[str, float | bool]) -> None:
        call = self._store.update_timeout(session_id, changes)
        self._compare(session_id, call, lambda session, now_ms: model.update_timeout(session, now_ms, changes))

    def _compare_update_metadata(self, session_id: str, patch: dict[str, Any]) -> None:
        call = self._store.update_metadata(session_id, patch)
        self._compare(session_id, call, lambda session, now_ms: model.update_metadata(session, now_ms, patch))

    def _compare(
        self, session_id: str, call: Awaitable[Session | None], verb: Callable[[ModelSession, int], Outcome]
    ) -> None:
        """Call the store, and compare the result with that of the model."""
        before_ms, result, after_ms = self._timed(result_of(call))
        session = self._models.get(session_id)
        if session is None:
            assert result == model.unknown(session_id)
        elif isinstance(result, Session):
            assert before_ms <= result.read_at_ms <= after_ms
            expected, self._models[session_id] = verb(session, result.read_at_ms)
            assert result == expected
            assert result.is_near_expiration is model.is_near_expiration(self._model(session_id), result.read_at_ms)
        else:
            outcomes = [verb(session, now_ms) for now_ms in (before_ms - 1, after_ms)]
            assert result in [expected for expected, _ in outcomes]
            self._models[session_id] = None if isinstance(result, Deleted) else session

    def _age_to(self, session_id: str, moment: Moment) -> None:
        session = self._models[session_id]
        if session is not None:
            target_ms = getattr(session, moment.attribute) + moment.offset_ms
            by_ms = max(0, target_ms - self._run(self._clock()))
            if by_ms:
                self._run(age(self._redis, session_id, by_ms))
            self._models[session_id] = model.aged(session, by_ms)

    def _model(self, session_id: str) -> ModelSession:
        session = self._models[session_id]
        assert session is not None
        return session

    def _assert_stored_data(self) -> None:
        read_ms, found, done_ms = self._timed(self._stored())
        for (session_id, session), stored in zip(self._models.items(), found, strict=True):
            assert stored in [model.stored(session, now_ms) for now_ms in (read_ms - 1, done_ms)], session_id

    def _assert_owner_indexes(self) -> None:
        expected: dict[str, set[str]] = {}
        for session in filter(None, self._models.values()):
            expected.setdefault(self._keys.user(session.user_id), set()).add(session.id)
            expected.setdefault(self._keys.agent(session.agent_id), set()).add(session.id)
        assert self._run(self._owner_index()) == expected

    async def _stored(self) -> list[StoredData]:
        async with self._redis.pipeline(transaction=True) as pipeline:
            for session_id in self._models:
                keys = self._keys.of(session_id)
                pipeline.hgetall(keys.session)
                pipeline.pexpiretime(keys.session)
                pipeline.hgetall(keys.tombstone)
                pipeline.pexpiretime(keys.tombstone)
                pipeline.zscore(keys.expiry, session_id)
                pipeline.zscore(keys.warning, session_id)
                pipeline.zscore(keys.created, session_id)
            replies = await pipeline.execute()
        return [StoredData(*replies[start : start + 7]) for start in range(0, len(replies), 7)]

    async def _owner_index(self) -> dict[str, set[str]]:
        owner_indexes = [*await self._redis.keys(self._keys.user("*")), *await self._redis.keys(self._keys.agent("*"))]
        return {
            _text(key): {_text(session_id) for session_id in await self._redis.zrange(key, 0, -1)}
            for key in owner_indexes
        }

    async def _clock(self) -> int:
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _run(self, call: Awaitable[_T]) -> _T:
        return self._runner.run(_awaited(call))

    def _timed(self, call: Awaitable[_T]) -> tuple[int, _T, int]:
        """The result of a call, and the server's time before and after it."""
        return self._run(self._with_times(call))

    async def _with_times(self, call: Awaitable[_T]) -> tuple[int, _T, int]:
        return await self._clock(), await call, await self._clock()


async def _awaited(call: Awaitable[_T]) -> _T:
    return await call


def _text(reply: Any) -> str:
    return str(reply, "ascii")


def new_id_in_one_shard(*_: str) -> str:
    return "ab" + str(uuid.uuid4())[2:]


async def _pipeline_to(redis: Redis) -> Pipeline:
    return Pipeline(Connector(service_connection_factory(redis), SCRIPTS), 10, StoreMonitor(Metrics()), SCRIPTS)


async def result_of(call: Awaitable[Session | None]) -> Result:
    try:
        session = await call
    except ServiceError as error:
        return Failure(type(error), error.facts)
    return Deleted() if session is None else session


each_size = pytest.mark.parametrize(
    "examples",
    [
        6,
        pytest.param(int(EXAMPLES or 60), marks=[pytest.mark.long, pytest.mark.timeout(300 + int(EXAMPLES or 0))]),
    ],
)


@each_size
def test_the_store_behaves_like_the_model(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr("service.sessions.creation.new_session_id", new_id_in_one_shard)
    machine = cast(type[SessionsInRedis], partial(SessionsInRedis, redis_server.admin_url))
    run_state_machine_as_test(machine, settings=settings(RUN, max_examples=examples))
