"""Requests that are let through uncounted, for Redis does not count them: told once an episode, and not waited for."""

import time
from collections.abc import Callable

from service.errors import StoreUnavailable
from service.redis_client.cluster_routing import slot_of
from service.redis_client.errors import ScriptError
from service.redis_client.monitor import QUIET_SECONDS, Incident

PAUSE_SECONDS = 1
"""While a server does not count, one request tries it in so long; the others pass by at once."""


class CircuitBreaker:
    """By what servers may differ in: by slots in a Cluster, where one of several may be away, else all as one."""

    def __init__(self, *, by_slot: bool) -> None:
        self._place_of: Callable[[str], int] = slot_of if by_slot else lambda _: 0
        self._lasts = False
        self._next_try: dict[int, float] = {}
        self._trouble = Incident(
            "requests are let through uncounted, for the session store does not count them",
            "requests are counted again",
        )

    def is_worth_a_try(self, key: str) -> bool:
        if not self._lasts:
            return True
        place, now = self._place_of(key), time.monotonic()
        if now < self._next_try.get(place, 0):
            return False
        if place in self._next_try:
            self._next_try[place] = now + PAUSE_SECONDS
        return True

    def failed(self, key: str, error: StoreUnavailable | ScriptError) -> None:
        self._lasts = True
        self._next_try[self._place_of(key)] = time.monotonic() + PAUSE_SECONDS
        self._trouble.record_failure(error)

    def went_well(self, key: str) -> None:
        if self._lasts:
            self._next_try.pop(self._place_of(key), None)
            if not self._trouble.occurred_within(QUIET_SECONDS):
                self._lasts = False
                self._next_try.clear()
                self._trouble.record_success()
