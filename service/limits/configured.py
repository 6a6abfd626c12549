"""The door that the settings ask for."""

from service.http.addresses import Addresses
from service.lanes.lane import Lane
from service.life.keys import Keys
from service.limits.buckets import Buckets
from service.limits.door import Door
from service.limits.limit import allowance
from service.settings import CannotStart, Settings
from service.telemetry.metrics import Metrics


def door_of(settings: Settings, addresses: Addresses, lane: Lane, keys: Keys, metrics: Metrics) -> Door | None:
    """None where nothing is limited. On the lane, no change may wait for replicas. Raises CannotStart."""
    of_address = allowance("address", settings.rate_per_address, settings.guesses_per_address)
    of_caller = allowance("caller", settings.rate_per_caller, settings.guesses_per_caller)
    if of_caller and not settings.is_guarded:
        name = "SESSION_RATE_PER_CALLER" if of_caller.requests else "SESSION_GUESSES_PER_CALLER"
        raise CannotStart(f"{name}: limits callers, who are known only where there are keys or tokens")
    if not (of_address or of_caller):
        return None
    return Door(addresses, keys, Buckets(lane), of_address, of_caller, metrics.requests_limited)
