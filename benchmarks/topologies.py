"""Redis topologies for a replica: one server, Sentinel and a cluster."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.machine import LOAD_CORE, redis_server
from tests.cluster_servers import ClusterServers
from tests.sentinel_servers import SentinelServers


@contextmanager
def topologies() -> Iterator[dict[str, dict[str, str]]]:
    """Start all topologies, on the core of Redis and the load. Yields the replica's settings for each.

    Sentinel has a primary, two replicas and three Sentinels. The cluster has three primaries.
    """
    with ExitStack() as stack:
        sentinel_url = stack.enter_context(_running(SentinelServers))
        yield {
            "one server": {"REDIS_URL": stack.enter_context(redis_server())},
            "Sentinel": {"REDIS_URL": sentinel_url},
            "Sentinel, SESSION_WAIT_REPLICAS=1": {"REDIS_URL": sentinel_url, "SESSION_WAIT_REPLICAS": "1"},
            "Cluster": {"REDIS_URL": stack.enter_context(_running(ClusterServers))},
        }


@contextmanager
def _running(new_servers: Callable[[Path], SentinelServers | ClusterServers]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        servers = new_servers(Path(folder))
        with _children_on(LOAD_CORE):
            servers.start()
        try:
            yield servers.url
        finally:
            servers.stop()


@contextmanager
def _children_on(core: int) -> Iterator[None]:
    """Processes that start in this context run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})
    yield
    os.sched_setaffinity(0, before)
