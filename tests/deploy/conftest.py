"""Settings of the manifests are compared with the service's own defaults."""

import pytest


@pytest.fixture(autouse=True)
def _default_store_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSION_STORE_TIMEOUT_SECONDS")
