"""Instruments of several workers as one: each keeps its numbers in files in one folder, and any of them reads them all.

Files are named by the worker's number and not by its process, as prometheus_client would have it: a worker that is
started again goes on where the one before it was, and the files stay as few as the workers.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MEMORY = Path("/dev/shm")
"""A file system in memory, where there is one: nothing of this is worth a disk, and some containers have none."""


def home() -> Path | None:
    """Where the folder is best made; None where there is no better place than any."""
    return MEMORY if os.access(MEMORY, os.W_OK) else None


def share(folder: Path, worker: int) -> None:
    """Have every instrument that this process makes from here on keep its numbers in the folder."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
    _mark_of(folder, worker, os.getpid()).touch()


def forget(folder: Path, worker: int, process: int) -> None:
    """The process of a worker has ended: what it showed is gone. What it counted stays."""
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]
    _mark_of(folder, worker, process).unlink(missing_ok=True)


def register_all(folder: Path, registry: CollectorRegistry) -> None:
    """Have the registry tell of the instruments and of the processes of all workers."""
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    registry.register(_Processes(folder))


class _Processes:
    """Collects what prometheus_client tells of a process, of each worker's, by the worker's number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for mark in sorted(self._folder.glob("*.process")):
            worker, process = mark.stem.split("-")
            for told in _told_of(process):
                family = families.setdefault(told.name, Metric(told.name, told.documentation, told.type))
                for sample in told.samples:
                    family.add_sample(sample.name, {"worker": worker}, sample.value)
        return families.values()


def _told_of(process: str) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: process, registry=None).collect()


def _mark_of(folder: Path, worker: int, process: int) -> Path:
    """A file whose name alone tells which process a worker is: there is nothing in it to be read half-written."""
    return folder / f"{worker}-{process}.process"
