"""The kinds of servers that sessions may lie on, beside one another: one server, Sentinel, a Cluster."""

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
    """What a replica is told of each kind, by its name. All servers are on the core of Redis and the load.

    Behind Sentinel there are a primary with two replicas, and three Sentinels; the Cluster has three primaries.
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
    """The URL of the servers."""
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
    """Processes that are started meanwhile stay on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})
    yield
    os.sched_setaffinity(0, before)
