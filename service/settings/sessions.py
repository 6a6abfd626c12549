"""Settings of sessions: timeouts, caps, ids and idempotency."""

from functools import cached_property
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

MAX_CAP = 1_000_000
NO_CAP = 0

IdFormat = Literal["uuid", "hex128", "hex256"]
"""A UUIDv4, which has 122 random bits, or 128 or 256 random bits as hex digits."""

_DAY_MS = 86_400_000
_MAX_MINUTES = 525_600
_MIN_MINUTES = 0.001


class TimeoutConfig(NamedTuple):
    """Timeouts of a session, in minutes. They are whole numbers unless the settings allow fractions."""

    timeout_minutes: float
    auto_renew: bool
    max_duration_minutes: float
    warning_threshold_minutes: float


class Bounds(NamedTuple):
    """A range of minutes. Both bounds are valid values."""

    minimum: float
    maximum: float

    def contains(self, minutes: float) -> bool:
        return self.minimum <= minutes <= self.maximum

    def clamp(self, minutes: float) -> float:
        """Return the nearest valid value."""
        return min(max(minutes, self.minimum), self.maximum)

    def __str__(self) -> str:
        return f"between {self.minimum:g} and {self.maximum:g}"


class Caps(NamedTuple):
    """The most live sessions per user and per agent, or NO_CAP. With `evicts`, a new session ends the least active."""

    per_user: int
    per_agent: int
    evicts: bool


class SessionSettings(BaseSettings):
    """Minutes are whole numbers, unless the minimum timeout is a fraction."""

    session_default_timeout_minutes: float = 30
    session_min_timeout_minutes: float = Field(5, ge=_MIN_MINUTES, le=_MAX_MINUTES, allow_inf_nan=False)
    session_max_timeout_minutes: float = Field(1440, ge=_MIN_MINUTES, le=_MAX_MINUTES, allow_inf_nan=False)
    session_max_duration_minutes: float = 720
    session_warning_threshold_minutes: float = 5
    session_auto_renew: bool = True
    session_require_known_agent: bool = False
    session_out_of_range: Literal["refuse", "clamp"] = "refuse"
    session_tombstone_retention_minutes: float = Field(1440, ge=_MIN_MINUTES, le=_MAX_MINUTES, allow_inf_nan=False)
    session_max_per_user: int | None = Field(None, ge=1, le=MAX_CAP)
    session_max_per_agent: int | None = Field(None, ge=1, le=MAX_CAP)
    session_cap_policy: Literal["deny", "evict"] = "deny"
    session_id_format: IdFormat = "uuid"
    session_idempotency_minutes: float = Field(1440, ge=_MIN_MINUTES, le=_MAX_MINUTES, allow_inf_nan=False)

    @cached_property
    def default_timeout(self) -> TimeoutConfig:
        max_duration_minutes = self.session_max_duration_minutes
        if "session_max_duration_minutes" not in self.model_fields_set:
            max_duration_minutes = max(max_duration_minutes, self.session_default_timeout_minutes)
        return TimeoutConfig(
            _as_int_if_whole(self.session_default_timeout_minutes),
            self.session_auto_renew,
            _as_int_if_whole(max_duration_minutes),
            _as_int_if_whole(self.session_warning_threshold_minutes),
        )

    @property
    def timeout_bounds(self) -> Bounds:
        return Bounds(
            _as_int_if_whole(self.session_min_timeout_minutes), _as_int_if_whole(self.session_max_timeout_minutes)
        )

    @property
    def max_duration_bounds(self) -> Bounds:
        minimum, maximum = self.timeout_bounds
        return Bounds(minimum, 2 * maximum)

    @property
    def warning_threshold_bounds(self) -> Bounds:
        minimum, maximum = self.timeout_bounds
        return Bounds(min(1, minimum), maximum)

    @property
    def whole_minutes(self) -> bool:
        """Whether minutes must be whole numbers."""
        return self.session_min_timeout_minutes.is_integer()

    @property
    def retention_ms(self) -> int:
        """How long a tombstone outlives its session."""
        return round(self.session_tombstone_retention_minutes * 60_000)

    @property
    def owner_index_lifetime_ms(self) -> int:
        """The minimum lifetime of an owner index after an addition: the longest possible session plus a day."""
        return round(self.max_duration_bounds.maximum * 60_000) + _DAY_MS

    @property
    def caps(self) -> Caps | None:
        if self.session_max_per_user is None and self.session_max_per_agent is None:
            return None
        evicts = self.session_cap_policy == "evict"
        return Caps(self.session_max_per_user or NO_CAP, self.session_max_per_agent or NO_CAP, evicts)

    @property
    def record_lifetime_ms(self) -> int:
        """How long an idempotency record is kept."""
        return round(self.session_idempotency_minutes * 60_000)

    @model_validator(mode="after")
    def _validate_timeouts(self) -> Self:
        minimum, maximum = self.session_min_timeout_minutes, self.session_max_timeout_minutes
        if maximum < minimum:
            raise ValueError(
                "SESSION_MAX_TIMEOUT_MINUTES must not be less than "
                f"SESSION_MIN_TIMEOUT_MINUTES, which is {minimum:g} (got {maximum:g})"
            )
        self._validate_default("session_default_timeout_minutes", self.timeout_bounds)
        self._validate_default("session_max_duration_minutes", self.max_duration_bounds)
        self._validate_default("session_warning_threshold_minutes", self.warning_threshold_bounds)
        if self.model_fields_set >= {"session_default_timeout_minutes", "session_max_duration_minutes"}:
            self._validate_max_duration()
        return self

    def _validate_max_duration(self) -> None:
        timeout, max_duration = self.session_default_timeout_minutes, self.session_max_duration_minutes
        if max_duration < timeout:
            raise ValueError(
                "SESSION_MAX_DURATION_MINUTES must not be less than "
                f"SESSION_DEFAULT_TIMEOUT_MINUTES, which is {timeout:g} (got {max_duration:g})"
            )

    def _validate_default(self, name: str, bounds: Bounds) -> None:
        minutes = getattr(self, name)
        if not bounds.contains(minutes):
            raise ValueError(f"{name.upper()} must be {bounds} (got {minutes:g})")
        if self.whole_minutes and not minutes.is_integer():
            raise ValueError(
                f"{name.upper()} must be a whole number, because SESSION_MIN_TIMEOUT_MINUTES is one (got {minutes:g})"
            )


def _as_int_if_whole(minutes: float) -> float:
    return int(minutes) if minutes.is_integer() else minutes
