"""Run one Redis server, Sentinel and a Cluster at the same time."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.machine import LOAD_CORE, redis_server
from tests.cluster_servers import ClusterServers
from tests.sentinel_servers import SentinelServers


@contextmanager
def kinds() -> Iterator[dict[str, dict[str, str]]]:
    """Yield the settings of a replica for each kind of Redis. All servers run on the core of the load generator.

    Sentinel has a primary, two replicas and three Sentinels; the Cluster has three primaries.
    """
    with ExitStack() as stack:
        behind_sentinel = stack.enter_context(_running(SentinelServers))
        yield {
            "one server": {"REDIS_URL": stack.enter_context(redis_server())},
            "Sentinel": {"REDIS_URL": behind_sentinel},
            "Sentinel, SESSION_WAIT_REPLICAS=1": {"REDIS_URL": behind_sentinel, "SESSION_WAIT_REPLICAS": "1"},
            "Cluster": {"REDIS_URL": stack.enter_context(_running(ClusterServers))},
        }


@contextmanager
def _running(make: Callable[[Path], SentinelServers | ClusterServers]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        servers = make(Path(folder))
        with _children_on(LOAD_CORE):
            servers.start()
        try:
            yield servers.url
        finally:
            servers.stop()


@contextmanager
def _children_on(core: int) -> Iterator[None]:
    """Pin processes that start within the block to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})
    yield
    os.sched_setaffinity(0, before)
