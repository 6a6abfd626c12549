"""Caps against a model: random creations, ends and activities, each answer and each survivor compared.

A machine creates sessions of a few users and agents through a replica that denies, one that evicts and one without
caps; it lets them be active, expire, be deleted and be lost, has what ended swept, and lets a second pass for all of
them between two steps. The model is a list of sessions: a creation is refused, or ends others, exactly where as many
live as may.

For a longer run say how many: `MODEL_EXAMPLES=2000 pytest tests/test_caps_model.py`.
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
from tests.aging import age_counted
from tests.attempt import attempt
from tests.conftest import create_session, events_into, like_of_the_service, store_on
from tests.redis_server import RedisServer
from tests.sessions.evidence import keys_in

PER_USER, PER_AGENT = 2, 3
A_SECOND_MS = 1000
A_LIFE_MS = 60 * 60_000
KEYS = Keys("")

EXAMPLES = os.environ.get("MODEL_EXAMPLES")
RUN = settings(
    max_examples=int(EXAMPLES or 20),
    stateful_step_count=40,
    deadline=None,
    derandomize=EXAMPLES is None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

users = st.sampled_from([f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)])
agents = st.sampled_from([f"00000000-0000-4000-8000-0000000000a{number}" for number in range(2)])
any_of_them = st.integers(0, 10_000)

_T = TypeVar("_T")


@dataclass
class Life:
    """A session that lives; `idle` is for how many steps."""

    id: str
    agent: str
    user: str
    idle: int = 0

    @property
    def owner_indexes(self) -> list[str]:
        return KEYS.owner_indexes(self.agent, self.user)


class CappedSessions(RuleBasedStateMachine):
    """Sessions of real stores beside those of the model."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._redis = redis_py_client(url, 2)
        self._redis_client = self._run(_pipeline_to(self._redis))
        caps = {"session_max_per_user": PER_USER, "session_max_per_agent": PER_AGENT}
        self._denying = store_on(self._redis_client, Settings(**caps))  # type: ignore[arg-type]
        self._evicting = store_on(self._redis_client, Settings(**caps, session_cap_policy="evict"))  # type: ignore[arg-type]
        self._uncapped = store_on(self._redis_client, Settings())
        self._living: list[Life] = []
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
    def create_and_let_others_end(self, user: str, agent: str) -> None:
        self._evict([life for life in self._living if life.user == user], PER_USER)
        self._evict([life for life in self._living if life.agent == agent], PER_AGENT)
        self._create(self._evicting, user, agent)

    @rule(user=users, agent=agents)
    def create_without_caps(self, user: str, agent: str) -> None:
        self._create(self._uncapped, user, agent)

    @precondition(lambda self: self._living)
    @rule(which=any_of_them)
    def be_active(self, which: int) -> None:
        life = self._living[which % len(self._living)]
        self._run(self._denying.heartbeat(life.id))
        life.idle = 0

    @precondition(lambda self: self._living)
    @rule(which=any_of_them)
    def expire(self, which: int) -> None:
        life = self._gone(which)
        self._run(age_counted(self._redis, life.id, A_LIFE_MS, *life.owner_indexes))

    @precondition(lambda self: self._living)
    @rule(which=any_of_them, by=st.sampled_from(["_denying", "_uncapped"]))
    def delete(self, which: int, by: str) -> None:
        store: SessionStore = getattr(self, by)
        self._run(store.delete(self._gone(which).id))

    @precondition(lambda self: self._living)
    @rule(which=any_of_them)
    def lose(self, which: int) -> None:
        self._run(self._redis.delete(KEYS.session(self._gone(which).id)))

    @rule(capped=st.booleans())
    def sweep(self, capped: bool) -> None:
        metrics = Metrics()
        sweeper = Sweeper(self._redis_client, Keys("", capped=capped), events_into(metrics), metrics, retention_ms=1000)
        self._run(sweeper.sweep())

    @invariant()
    def those_of_the_model_live_and_no_others(self) -> None:
        hashes = [key for key in self._run(keys_in(self._redis)) if key.startswith("session:")]
        living = {key.rpartition(":")[2] for key in hashes} - {"tombstone"}
        assert living == {life.id for life in self._living}

    @invariant()
    def a_second_passes(self) -> None:
        for life in self._living:
            life.idle += 1
            self._run(age_counted(self._redis, life.id, A_SECOND_MS, *life.owner_indexes))

    def _is_full(self, user: str, agent: str) -> bool:
        of_the_user = [life for life in self._living if life.user == user]
        of_the_agent = [life for life in self._living if life.agent == agent]
        return len(of_the_user) >= PER_USER or len(of_the_agent) >= PER_AGENT

    def _create(self, store: SessionStore, user: str, agent: str) -> None:
        session = self._run(create_session(store, agent_id=agent, user_id=user))
        self._living.append(Life(session.id, agent, user))

    def _evict(self, of_the_owner: list[Life], cap: int) -> None:
        """The idlest end until there is room for one more."""
        too_many = max(len(of_the_owner) - cap + 1, 0)
        for life in sorted(of_the_owner, key=lambda life: -life.idle)[:too_many]:
            self._living.remove(life)

    def _gone(self, which: int) -> Life:
        return self._living.pop(which % len(self._living))

    def _run(self, call: Awaitable[_T]) -> _T:
        return self._runner.run(_awaited(call))


async def _awaited(call: Awaitable[_T]) -> _T:
    return await call


async def _pipeline_to(redis: Redis) -> Pipeline:
    return Pipeline(Connector(like_of_the_service(redis), SCRIPTS), 2, StoreMonitor(Metrics()), SCRIPTS)


@pytest.mark.timeout(300 + int(EXAMPLES or 0))
def test_creations_are_refused_and_sessions_end_as_the_model_says(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    machine = cast(type[CappedSessions], partial(CappedSessions, redis_server.admin_url))
    run_state_machine_as_test(machine, settings=RUN)
