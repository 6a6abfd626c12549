"""Which tests are collected, and in which order they run. tests/conftest.py imports these hooks of pytest."""

from collections import Counter
from pathlib import Path

import pytest

_SLOW_TESTS = (
    "tests/process/",
    "tests/deploy/",
    "tests/docs/",
    "tests/faults/",
    "tests/outages/",
    "tests/rate_limit/test_replicas",
    "tests/redis_client/",
    "tests/fuzz/",
    "tests/test_schemathesis",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip files of long tests unless they are requested: each xdist process would spend seconds on them."""
    return True if collection_path.name.endswith("_long.py") and config.option.markexpr == "not long" else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put the operation into the id of a schemathesis test: pytest 9.2 leaves it out, and xdist runs equal ids once."""
    if not item.nodeid.endswith(item.name):
        assert item.parent is not None
        item._id = item.parent.id.child(item.name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest folders first, so that all processes end together.

    Fails if two tests share an id, because xdist runs only one of them.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(_SLOW_TESTS))
    repeated = [node_id for node_id, count in Counter(item.nodeid for item in items).items() if count > 1]
    if repeated:
        raise pytest.UsageError(f"tests share an id: {', '.join(repeated)}")
