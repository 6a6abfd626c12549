"""Every knob of the service, each an environment variable of the same name in capitals."""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service import log
from service.access.api_keys import read_entries
from service.redis_url import taken_apart
from service.sessions import TimeoutConfig

MAX_METADATA_BYTES = 10 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_WORKERS = 64

_DAY_MS = 86_400_000
_A_YEAR = 525_600
_SHORTEST = 0.001
_LEAST_SECRET_BYTES = 32
_SAFE_URL = re.compile(r"https://.|http://(127\.0\.0\.1|localhost|\[::1\])[:/]")
_NOT_REPEATED = {"REDIS_URL", "SESSION_API_KEYS", "SESSION_JWT_SECRET", "SESSION_JWT_JWKS_URL"}
"""They hold secrets, or may."""
_SAID_OF = {
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
}


class CannotStart(Exception):  # noqa: N818  (it ends the start with one line)
    """What stops the start, in one line: for a setting, its variable, the fault and the bounds."""


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


class Settings(BaseSettings):
    """What the service was told; minutes are whole, or fractions where the least timeout is one."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(3000, ge=0, le=65535)
    redis_url: SecretStr | None = None
    session_workers: int = Field(1, ge=1, le=MAX_WORKERS)

    session_default_timeout_minutes: float = 30
    session_min_timeout_minutes: float = Field(5, ge=_SHORTEST, le=_A_YEAR, allow_inf_nan=False)
    session_max_timeout_minutes: float = Field(1440, ge=_SHORTEST, le=_A_YEAR, allow_inf_nan=False)
    session_max_duration_minutes: float = 720
    session_warning_threshold_minutes: float = 5
    session_auto_renew: bool = True
    session_require_known_agent: bool = False
    session_out_of_range: Literal["refuse", "clamp"] = "refuse"
    session_tombstone_retention_minutes: float = Field(1440, ge=_SHORTEST, le=_A_YEAR, allow_inf_nan=False)
    session_error_format: Literal["schema", "flat"] = "schema"
    session_key_prefix: str = ""
    session_data_dir: Path = Field(default_factory=lambda: _state_home() / "session-service")
    session_store_timeout_seconds: float = Field(2, ge=0.05, le=60, allow_inf_nan=False)
    session_wait_replicas: int = Field(0, ge=0, le=16)
    session_sweep_interval_seconds: float = Field(5, ge=0.01, le=3600, allow_inf_nan=False)
    session_reconcile_interval_seconds: float = Field(14, ge=0.01, le=3600, allow_inf_nan=False)
    session_drain_pause_seconds: float = Field(0, ge=0, le=600, allow_inf_nan=False)
    session_drain_timeout_seconds: float = Field(10, ge=0, le=600, allow_inf_nan=False)
    session_log_level: log.Level = "info"
    session_log_format: log.Format = "auto"
    session_tracing: bool = False

    session_api_keys: SecretStr | None = None
    session_api_keys_file: Path | None = None
    session_jwt_issuer: str | None = Field(None, min_length=1)
    session_jwt_audience: str | None = Field(None, min_length=1)
    session_jwt_jwks_url: str | None = None
    session_jwt_secret: SecretStr | None = None
    session_allow_anonymous: bool = False

    @property
    def is_guarded(self) -> bool:
        """Whether callers are asked who they are."""
        asking = (self.session_api_keys, self.session_api_keys_file, self.session_jwt_issuer)
        return any(given is not None for given in asking)

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
    def lookup_life_ms(self) -> int:
        """How long a lookup knows an id at least: the longest life that the settings allow, and a day."""
        return round(self.max_duration_bounds.greatest * 60_000) + _DAY_MS

    @field_validator("redis_url")
    @classmethod
    def _url_is_of_a_known_kind(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        if not url.get_secret_value():
            raise ValueError("is empty; leave it unset for the embedded server")
        taken_apart(url.get_secret_value())
        return url

    @field_validator("session_api_keys")
    @classmethod
    def _keys_are_entries(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            read_entries(keys.get_secret_value())
        return keys

    @field_validator("session_jwt_secret")
    @classmethod
    def _secret_is_long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().encode()) < _LEAST_SECRET_BYTES:
            raise ValueError(f"must be {_LEAST_SECRET_BYTES} bytes or more, and random")
        return secret

    @field_validator("session_jwt_jwks_url")
    @classmethod
    def _nobody_can_change_keys_on_their_way(cls, url: str | None) -> str | None:
        if url is not None and not _SAFE_URL.match(url):
            raise ValueError("must begin with https:// (or http://127.0.0.1, for an issuer beside the service)")
        return url

    @field_validator("session_key_prefix")
    @classmethod
    def _prefix_leaves_hash_tags_alone(cls, prefix: str) -> str:
        if not prefix.isprintable() or set(prefix) & set("{} "):
            raise ValueError("may not hold braces, blanks or control characters")
        return prefix

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

    @model_validator(mode="after")
    def _keys_have_one_place(self) -> Self:
        if self.session_api_keys is not None and self.session_api_keys_file is not None:
            raise ValueError("SESSION_API_KEYS: must not be set beside SESSION_API_KEYS_FILE")
        return self

    @model_validator(mode="after")
    def _tokens_can_be_judged(self) -> Self:
        """Who signs them, for whom, and with what."""
        together = {
            "SESSION_JWT_ISSUER": self.session_jwt_issuer,
            "SESSION_JWT_AUDIENCE": self.session_jwt_audience,
            "SESSION_JWT_JWKS_URL or SESSION_JWT_SECRET": self.session_jwt_jwks_url or self.session_jwt_secret,
        }
        missing = [name for name, value in together.items() if value is None]
        if 0 < len(missing) < len(together):
            raise ValueError(f"{missing[0]}: is required where there are tokens (SESSION_JWT_...)")
        if self.session_jwt_jwks_url is not None and self.session_jwt_secret is not None:
            raise ValueError("SESSION_JWT_SECRET: must not be set beside SESSION_JWT_JWKS_URL")
        return self


def load_settings() -> Settings:
    """The settings of the environment. Raises CannotStart with one line for every variable at fault."""
    try:
        return Settings()
    except ValidationError as error:
        raise CannotStart("\n".join(_in_one_line(fault) for fault in error.errors())) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """The SESSION_ variables that no knob reads: most likely misspelt."""
    known = {name.upper() for name in Settings.model_fields}
    return sorted(name for name in environment if name.upper().startswith("SESSION_") and name.upper() not in known)


def _plain(minutes: float) -> float:
    """30.0 as 30: minutes are stored and shown as people write them."""
    return int(minutes) if minutes.is_integer() else minutes


def _in_one_line(fault: Mapping[str, object]) -> str:
    message = _SAID_OF.get(str(fault["type"])) or str(fault["msg"]).removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    location = fault["loc"]
    if not isinstance(location, tuple) or not location:
        return message
    name = str(location[0]).upper()
    if name in _NOT_REPEATED:
        return f"{name}: {message}"
    return f"{name}={fault['input']}: {message}"


def _state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
