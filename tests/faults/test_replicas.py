"""Replicas behind the balancer are killed and restarted: no read fails, and a graceful restart causes no failure."""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.balancer import Balancer
from tests.faults.conftest import LONG_STORE_TIMEOUT, started
from tests.faults.load import CHANGES, READS, Load
from tests.faults.proxy import Proxy
from tests.faults.scales import SCALES, Scale
from tests.redis_server import RedisServer, free_port
from tests.replica import Replica

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="needs HAProxy: apt-get install haproxy, or brew install haproxy"
)

NUMBER_OF_REPLICAS = 2
DRAIN_PAUSE_SECONDS = "3"
"""Two health checks of the balancer: `inter 1s`, `fall 2`."""


class Deployment(NamedTuple):
    """The balancer, and all replicas that ever ran. A restarted replica keeps its port."""

    replicas: list[Replica]
    balancer: Balancer

    def restart_oldest(self, end: Callable[[Replica], object]) -> None:
        """Call `end` with the oldest replica, and wait until its successor is ready."""
        oldest = self.replicas[-NUMBER_OF_REPLICAS]
        end(oldest)
        successor = Replica(**oldest.settings)
        self.replicas.append(successor)
        successor.start()
        assert successor.wait_for_line("{session_id}")


@pytest.fixture(scope="module")
def deployment(servers: tuple[RedisServer, Proxy]) -> Iterator[Deployment]:
    settings = {
        **LONG_STORE_TIMEOUT,
        "REDIS_URL": servers[0].url,
        "SESSION_DRAIN_PAUSE_SECONDS": DRAIN_PAUSE_SECONDS,
    }
    ports = [str(free_port()) for _ in range(NUMBER_OF_REPLICAS)]
    with (
        tempfile.TemporaryDirectory() as folder,
        started(*(Replica(PORT=port, **settings) for port in ports)) as replicas,
    ):
        balancer = Balancer(Path(folder), [f"127.0.0.1:{port}" for port in ports])
        balancer.start()
        yield Deployment(replicas, balancer)
        balancer.stop()
        for replica in replicas:
            kill(replica)


def kill(replica: Replica) -> None:
    replica.signal(signal.SIGKILL)
    replica.wait()


@SCALES
def test_killed_replicas_cause_no_failed_read(deployment: Deployment, scale: Scale) -> None:
    with Load([deployment.balancer.url], clients=scale.clients) as load:
        for _ in range(scale.repetitions):
            load.wait_for_successes(scale.requests)
            deployment.restart_oldest(kill)
            load.wait_until_stable()

    assert load.violations == []
    assert load.failures(READS) == []
    assert {response.status for response in load.failures(CHANGES)} <= {0, 502}
    assert len(load.failures(CHANGES)) <= scale.clients * scale.repetitions


@SCALES
def test_a_rolling_restart_causes_no_failure(deployment: Deployment, scale: Scale) -> None:
    with Load([deployment.balancer.url], clients=scale.clients) as load:
        for _ in range(scale.repetitions):
            deployment.restart_oldest(Replica.stop)
            load.wait_for_successes(scale.requests)

    assert load.violations == []
    assert load.failures() == []
