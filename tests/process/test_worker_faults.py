"""Tests that faults of the system, of a worker or of a reader do not end the other workers."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.process.worker_processes import children_of, connection_to_each_worker, workers_of
from tests.replica import Replica


@contextmanager
def no_new_files(process: int) -> Iterator[None]:
    """Let every attempt of the process to open a file fail with EMFILE."""
    soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.prlimit(process, resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_that_cannot_be_forked_is_started_later(pair: Replica) -> None:
    killed, other = workers_of(pair)

    with no_new_files(pair.pid):
        os.kill(killed, signal.SIGKILL)
        line = pair.wait_for_line("a worker cannot be started and is tried again")
        assert children_of(pair.pid) == [other]
    with connection_to_each_worker(pair):
        assert other in workers_of(pair)

    assert "Too many open files" in line
    assert pair.stop() == 0


def test_workers_write_no_core_dump(pair: Replica) -> None:
    with connection_to_each_worker(pair):
        limits = {resource.prlimit(worker, resource.RLIMIT_CORE) for worker in workers_of(pair)}

    assert limits == {(0, 0)}
