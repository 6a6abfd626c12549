"""Compare caps with a model, over random creations, ends and activities.

A state machine creates sessions of a few users and agents on replicas that deny, evict or have no caps. Sessions are
active, expire, are deleted or lost, and are swept. They age by a second after each step. The model is a list of live
sessions: a creation must be denied, or evict others, exactly at the caps.

`MODEL_EXAMPLES=2000 pytest -m long tests/sessions/test_caps_model.py` runs random sequences.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis.asyncio import Redis

from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.connector import Connector
from service.redis_client.factory import redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Pipeline
from service.sessions.keys import Keys
from service.sessions.scripts import SCRIPTS
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age_with_indexes
from tests.attempt import attempt
from tests.conftest import create_session, new_session_events, new_session_store, service_connection_factory
from tests.redis_contents import keys_in
from tests.redis_server import RedisServer

PER_USER, PER_AGENT = 2, 3
SECOND_MS = 1000
HOUR_MS = 60 * 60_000
KEYS = Keys("")

EXAMPLES = os.environ.get("MODEL_EXAMPLES")
RUN = settings(
    stateful_step_count=40,
    deadline=None,
    derandomize=EXAMPLES is None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

users = st.sampled_from([f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)])
agents = st.sampled_from([f"00000000-0000-4000-8000-0000000000a{number}" for number in range(2)])
any_index = st.integers(0, 10_000)

_T = TypeVar("_T")


@dataclass
class LiveSession:
    """A live session. `idle` counts the steps since its last activity."""

    id: str
    agent: str
    user: str
    idle: int = 0

    @property
    def owner_indexes(self) -> list[str]:
        return KEYS.owner_indexes(self.agent, self.user)


class CappedSessions(RuleBasedStateMachine):
    """Sessions of stores, compared with those of the model."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._redis = redis_py_client(url, 10)
        self._redis_client = self._run(pipeline_to(self._redis))
        caps = {"session_max_per_user": PER_USER, "session_max_per_agent": PER_AGENT}
        self._denying = new_session_store(self._redis_client, Settings(**caps))  # type: ignore[arg-type]
        self._evicting = new_session_store(self._redis_client, Settings(**caps, session_cap_policy="evict"))  # type: ignore[arg-type]
        self._without_caps = new_session_store(self._redis_client, Settings())
        self._live: list[LiveSession] = []
        self._run(self._redis.flushall())

    def teardown(self) -> None:
        self._run(self._redis_client.aclose())
        self._run(self._redis.aclose())
        self._runner.close()

    @rule(user=users, agent=agents)
    def create_or_be_denied(self, user: str, agent: str) -> None:
        if self._is_full(user, agent):
            assert self._run(attempt(create_session, self._denying, agent_id=agent, user_id=user)) == "full"
        else:
            self._create(self._denying, user, agent)

    @rule(user=users, agent=agents)
    def create_and_evict(self, user: str, agent: str) -> None:
        self._evict([session for session in self._live if session.user == user], PER_USER)
        self._evict([session for session in self._live if session.agent == agent], PER_AGENT)
        self._create(self._evicting, user, agent)

    @rule(user=users, agent=agents)
    def create_without_caps(self, user: str, agent: str) -> None:
        self._create(self._without_caps, user, agent)

    @precondition(lambda self: self._live)
    @rule(index=any_index)
    def heartbeat(self, index: int) -> None:
        session = self._live[index % len(self._live)]
        self._run(self._denying.heartbeat(session.id))
        session.idle = 0

    @precondition(lambda self: self._live)
    @rule(index=any_index)
    def expire(self, index: int) -> None:
        session = self._remove(index)
        self._run(age_with_indexes(self._redis, session.id, HOUR_MS, *session.owner_indexes))

    @precondition(lambda self: self._live)
    @rule(index=any_index, by=st.sampled_from(["_denying", "_without_caps"]))
    def delete(self, index: int, by: str) -> None:
        store: SessionStore = getattr(self, by)
        self._run(store.delete(self._remove(index).id))

    @precondition(lambda self: self._live)
    @rule(index=any_index)
    def lose(self, index: int) -> None:
        self._run(self._redis.delete(KEYS.session(self._remove(index).id)))

    @rule(capped=st.booleans())
    def sweep(self, capped: bool) -> None:
        metrics = Metrics()
        sweeper = Sweeper(
            self._redis_client, Keys("", capped=capped), new_session_events(metrics), metrics, retention_ms=1000
        )
        self._run(sweeper.sweep())

    @invariant()
    def live_sessions_match_the_model(self) -> None:
        hashes = [key for key in self._run(keys_in(self._redis)) if key.startswith("session:")]
        live = {key.rpartition(":")[2] for key in hashes} - {"tombstone"}
        assert live == {session.id for session in self._live}

    @invariant()
    def age_by_a_second(self) -> None:
        for session in self._live:
            session.idle += 1
            self._run(age_with_indexes(self._redis, session.id, SECOND_MS, *session.owner_indexes))

    def _is_full(self, user: str, agent: str) -> bool:
        user_sessions = [session for session in self._live if session.user == user]
        agent_sessions = [session for session in self._live if session.agent == agent]
        return len(user_sessions) >= PER_USER or len(agent_sessions) >= PER_AGENT

    def _create(self, store: SessionStore, user: str, agent: str) -> None:
        session = self._run(create_session(store, agent_id=agent, user_id=user))
        self._live.append(LiveSession(session.id, agent, user))

    def _evict(self, sessions: list[LiveSession], cap: int) -> None:
        """End the longest idle sessions until there is room for another."""
        excess = max(len(sessions) - cap + 1, 0)
        for session in sorted(sessions, key=lambda session: -session.idle)[:excess]:
            self._live.remove(session)

    def _remove(self, index: int) -> LiveSession:
        return self._live.pop(index % len(self._live))

    def _run(self, call: Awaitable[_T]) -> _T:
        return self._runner.run(_awaited(call))


async def _awaited(call: Awaitable[_T]) -> _T:
    return await call


async def pipeline_to(redis: Redis) -> Pipeline:
    return Pipeline(Connector(service_connection_factory(redis), SCRIPTS), 10, StoreMonitor(Metrics()), SCRIPTS)


each_size = pytest.mark.parametrize(
    "examples",
    [
        3,
        pytest.param(int(EXAMPLES or 20), marks=[pytest.mark.long, pytest.mark.timeout(300 + int(EXAMPLES or 0))]),
    ],
)


@each_size
def test_caps_behave_like_the_model(redis_server: RedisServer, caplog: pytest.LogCaptureFixture, examples: int) -> None:
    caplog.set_level(logging.ERROR)
    machine = cast(type[CappedSessions], partial(CappedSessions, redis_server.admin_url))
    run_state_machine_as_test(machine, settings=settings(RUN, max_examples=examples))
