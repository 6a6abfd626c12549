"""A circuit breaker: while Redis does not count, most requests pass without waiting for it."""

import time
from collections.abc import Callable

from service.errors import StoreUnavailable
from service.redis_client.cluster_routing import slot_of
from service.redis_client.errors import ScriptError
from service.redis_client.monitor import QUIET_SECONDS, Incident

RETRY_SECONDS = 1
"""While the circuit is open, one request in this time tries Redis."""


class CircuitBreaker:
    """Has one circuit for each slot of a Cluster, where one of several servers may fail, else a single one."""

    def __init__(self, *, by_slot: bool) -> None:
        self._circuit_of: Callable[[str], int] = slot_of if by_slot else lambda _: 0
        self._is_any_open = False
        self._retry_at: dict[int, float] = {}
        self._incident = Incident(
            "rate limits are not enforced, because the session store does not count requests",
            "rate limits are enforced again",
        )

    def allows(self, key: str) -> bool:
        """Return whether a request may try Redis."""
        if not self._is_any_open:
            return True
        circuit, now = self._circuit_of(key), time.monotonic()
        if now < self._retry_at.get(circuit, 0):
            return False
        if circuit in self._retry_at:
            self._retry_at[circuit] = now + RETRY_SECONDS
        return True

    def record_failure(self, key: str, error: StoreUnavailable | ScriptError) -> None:
        self._is_any_open = True
        self._retry_at[self._circuit_of(key)] = time.monotonic() + RETRY_SECONDS
        self._incident.record_failure(error)

    def record_success(self, key: str) -> None:
        if self._is_any_open:
            self._retry_at.pop(self._circuit_of(key), None)
            if not self._incident.occurred_within(QUIET_SECONDS):
                self._is_any_open = False
                self._retry_at.clear()
                self._incident.record_success()
