"""Structured events that the service has logged during a test."""

from typing import Any

import pytest


def logged_events(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the level, the event and the fields of each structured log line."""
    return [
        {"level": record.levelname.lower(), "event": record.getMessage(), **record.__dict__["fields"]}
        for record in caplog.records
        if "fields" in record.__dict__
    ]
