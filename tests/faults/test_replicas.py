"""Replicas are killed and restarted behind the balancer: no read fails, and restarts that drain lose nothing at all."""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.balancer import Balancer
from tests.faults.conftest import PATIENT, started
from tests.faults.lengths import LENGTHS, Length
from tests.faults.load import CHANGES, READS, Load
from tests.faults.proxy import Proxy
from tests.redis_server import RedisServer, free_port
from tests.replica import Replica

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="needs HAProxy: apt-get install haproxy, or brew install haproxy"
)

DRAIN_PAUSE_SECONDS = "3"
"""In which the balancer has asked twice whether it is ready: inter 1s, fall 2."""


class Group(NamedTuple):
    """Three replicas, each on a port that its successors keep, and the balancer before them."""

    replicas: list[Replica]
    balancer: Balancer

    def restart_oldest(self, end: Callable[[Replica], object]) -> None:
        """End it in this way and put another one in its place, which has served when this is over."""
        oldest = self.replicas[-3]
        end(oldest)
        successor = Replica(**oldest.settings)
        self.replicas.append(successor)
        successor.start()
        assert successor.line_with("{session_id}")


@pytest.fixture(scope="module")
def group(servers: tuple[RedisServer, Proxy]) -> Iterator[Group]:
    settings = {**PATIENT, "REDIS_URL": servers[0].url, "SESSION_DRAIN_PAUSE_SECONDS": DRAIN_PAUSE_SECONDS}
    ports = [str(free_port()) for _ in range(3)]
    with (
        tempfile.TemporaryDirectory() as folder,
        started(*(Replica(PORT=port, **settings) for port in ports)) as replicas,
    ):
        balancer = Balancer(Path(folder), [f"127.0.0.1:{port}" for port in ports])
        balancer.start()
        yield Group(replicas, balancer)
        balancer.stop()
        for replica in replicas:
            kill(replica)


def kill(replica: Replica) -> None:
    replica.signal(signal.SIGKILL)
    replica.wait()


@LENGTHS
def test_killed_replicas_cost_no_read(group: Group, length: Length) -> None:
    with Load([group.balancer.url], clients=length.clients) as load:
        for _ in range(length.times):
            load.until_answered(length.steady)
            group.restart_oldest(kill)
            load.until_well()

    assert load.wrong == []
    assert load.failures(READS) == []
    assert {answer.status for answer in load.failures(CHANGES)} <= {0, 502}
    assert len(load.failures(CHANGES)) <= length.clients * length.times


@LENGTHS
def test_restarts_that_drain_cost_nothing_at_all(group: Group, length: Length) -> None:
    with Load([group.balancer.url], clients=length.clients) as load:
        for _ in range(length.times):
            group.restart_oldest(Replica.stop)
            load.until_answered(length.steady)

    assert load.wrong == []
    assert load.failures() == []
