"""How long sessions live: timeouts, longest lives and their bounds."""

from functools import cached_property
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

_DAY_MS = 86_400_000
_A_YEAR = 525_600
_SHORTEST = 0.001


class TimeoutConfig(NamedTuple):
    """Timeouts of a session, in minutes. They are whole numbers unless the settings allow fractions."""

    timeout_minutes: float
    auto_renew: bool
    max_duration_minutes: float
    warning_threshold_minutes: float


class Bounds(NamedTuple):
    """The least and the greatest number of minutes that may be given, both included."""

    least: float
    greatest: float

    def hold(self, minutes: float) -> bool:
        return self.least <= minutes <= self.greatest

    def nearest(self, minutes: float) -> float:
        return min(max(minutes, self.least), self.greatest)

    def __str__(self) -> str:
        return f"from {self.least:g} to {self.greatest:g}"


class LifeSettings(BaseSettings):
    """Minutes are whole, or fractions where the least timeout is one."""

    session_default_timeout_minutes: float = 30
    session_min_timeout_minutes: float = Field(5, ge=_SHORTEST, le=_A_YEAR, allow_inf_nan=False)
    session_max_timeout_minutes: float = Field(1440, ge=_SHORTEST, le=_A_YEAR, allow_inf_nan=False)
    session_max_duration_minutes: float = 720
    session_warning_threshold_minutes: float = 5
    session_auto_renew: bool = True
    session_require_known_agent: bool = False
    session_out_of_range: Literal["refuse", "clamp"] = "refuse"
    session_tombstone_retention_minutes: float = Field(1440, ge=_SHORTEST, le=_A_YEAR, allow_inf_nan=False)

    @cached_property
    def default_timeout(self) -> TimeoutConfig:
        return TimeoutConfig(
            _plain(self.session_default_timeout_minutes),
            self.session_auto_renew,
            _plain(self.session_max_duration_minutes),
            _plain(self.session_warning_threshold_minutes),
        )

    @property
    def timeout_bounds(self) -> Bounds:
        return Bounds(_plain(self.session_min_timeout_minutes), _plain(self.session_max_timeout_minutes))

    @property
    def max_duration_bounds(self) -> Bounds:
        least, greatest = self.timeout_bounds
        return Bounds(least, 2 * greatest)

    @property
    def warning_threshold_bounds(self) -> Bounds:
        least, greatest = self.timeout_bounds
        return Bounds(min(1, least), greatest)

    @property
    def whole_minutes(self) -> bool:
        return self.session_min_timeout_minutes.is_integer()

    @property
    def retention_ms(self) -> int:
        return round(self.session_tombstone_retention_minutes * 60_000)

    @property
    def owner_index_lifetime_ms(self) -> int:
        """How long a lookup knows an id at least: the longest life that the settings allow, and a day."""
        return round(self.max_duration_bounds.greatest * 60_000) + _DAY_MS

    @model_validator(mode="after")
    def _defaults_lie_within_their_bounds(self) -> Self:
        if self.session_max_timeout_minutes < self.session_min_timeout_minutes:
            raise ValueError(
                f"SESSION_MAX_TIMEOUT_MINUTES={self.session_max_timeout_minutes:g}: "
                f"must not be below SESSION_MIN_TIMEOUT_MINUTES ({self.session_min_timeout_minutes:g})"
            )
        for name, bounds in (
            ("session_default_timeout_minutes", self.timeout_bounds),
            ("session_max_duration_minutes", self.max_duration_bounds),
            ("session_warning_threshold_minutes", self.warning_threshold_bounds),
        ):
            minutes = getattr(self, name)
            if not bounds.hold(minutes):
                raise ValueError(f"{name.upper()}={minutes:g}: must be {bounds}")
            if self.whole_minutes and not minutes.is_integer():
                raise ValueError(f"{name.upper()}={minutes:g}: must be whole, as SESSION_MIN_TIMEOUT_MINUTES is")
        return self


def _plain(minutes: float) -> float:
    """30.0 as 30: minutes are stored and shown as people write them."""
    return int(minutes) if minutes.is_integer() else minutes
