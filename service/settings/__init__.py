"""The settings of the service. Each is an environment variable with the same name in upper case."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from service.errors import StartupError
from service.settings.auth import AuthSettings
from service.settings.http import HttpSettings
from service.settings.messages import MessageSettings
from service.settings.observability import ObservabilitySettings
from service.settings.rate_limits import RateLimitSettings
from service.settings.redis_url import parse_redis_url, with_password
from service.settings.sessions import SessionSettings

MAX_METADATA_BYTES = 10 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_WORKERS = 64

_SECRETS = {"REDIS_URL", "REDIS_PASSWORD", "SESSION_API_KEYS", "SESSION_JWT_SECRET", "SESSION_JWT_JWKS_URL"}
"""Variables that may contain secrets. Errors do not repeat their values."""


class Settings(SessionSettings, MessageSettings, AuthSettings, RateLimitSettings, HttpSettings, ObservabilitySettings):
    """All settings. They are immutable."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(3000, ge=0, le=65535)
    session_workers: int = Field(1, ge=1, le=MAX_WORKERS)
    session_error_format: Literal["schema", "flat"] = "schema"
    session_drain_pause_seconds: float = Field(0, ge=0, le=600, allow_inf_nan=False)
    session_drain_timeout_seconds: float = Field(10, ge=0, le=600, allow_inf_nan=False)

    redis_password: SecretStr | None = None  # before redis_url, whose validator uses it
    redis_url: SecretStr | None = None
    session_data_dir: Path = Field(default_factory=lambda: _state_home() / "session-service")
    session_key_prefix: str = ""
    session_store_timeout_seconds: float = Field(2, ge=0.05, le=60, allow_inf_nan=False)
    session_wait_replicas: int = Field(0, ge=0, le=16)
    session_sweep_interval_seconds: float = Field(5, ge=0.01, le=3600, allow_inf_nan=False)
    session_reconcile_interval_seconds: float = Field(14, ge=0.01, le=3600, allow_inf_nan=False)

    @property
    def message_lifetime_ms(self) -> int:
        """How long a message may exist: the longest possible session plus the retention."""
        return round(self.max_duration_bounds.maximum * 60_000) + self.retention_ms

    @field_validator("redis_url")
    @classmethod
    def _validate_redis_url(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if url is None:
            return None
        if not url.get_secret_value():
            raise ValueError("must not be empty. Unset it to use the embedded server")
        parse_redis_url(url.get_secret_value())
        password = info.data.get("redis_password")
        if password is None:
            return url
        return SecretStr(with_password(url.get_secret_value(), password.get_secret_value()))

    @field_validator("session_key_prefix")
    @classmethod
    def _validate_key_prefix(cls, prefix: str) -> str:
        if not prefix.isprintable() or set(prefix) & set("{} "):
            raise ValueError("must not contain braces, spaces or control characters")
        return prefix

    @model_validator(mode="after")
    def _validate_cors_origins(self) -> Self:
        """Without authentication, `*` would let every web page use the service."""
        if "*" in self.cors_origins and not self.requires_authentication:
            raise ValueError("SESSION_CORS_ORIGINS must list origins, unless API keys or tokens are required (got *)")
        return self


def load_settings() -> Settings:
    """Load the settings from the environment. Raises StartupError with a line for each invalid variable."""
    try:
        return Settings()
    except ValidationError as error:
        raise StartupError("\n".join(_error_line(details) for details in error.errors())) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the SESSION_ variables that are not settings. Most are misspelled."""
    names = {name.upper() for name in Settings.model_fields}
    return sorted(name for name in environment if name.upper().startswith("SESSION_") and name.upper() not in names)


def _error_line(details: Mapping[str, Any]) -> str:
    """Return `PORT must be between 0 and 65535 (got 70000)`, for example."""
    if not details["loc"]:  # a validator of several settings, which names them
        return _message_of(details)
    field = str(details["loc"][0])
    name, message = field.upper(), _requirement_of(field, details)
    if not message.startswith("must "):  # about a part of the value, which the message names
        return f"{name}: {message}"
    return f"{name} {message}" if name in _SECRETS else f"{name} {message} (got {details['input']})"


def _requirement_of(field: str, details: Mapping[str, Any]) -> str:
    match details["type"]:
        case "int_parsing":
            return "must be a whole number"
        case "float_parsing":
            return "must be a number"
        case "bool_parsing":
            return "must be true or false"
        case "literal_error":
            return f"must be one of {', '.join(get_args(Settings.model_fields[field].annotation))}"
        case "greater_than_equal" | "less_than_equal" | "finite_number":
            return _range_of(field) or _message_of(details)
        case "string_too_short":
            return "must not be empty"
        case _:
            return _message_of(details)


def _range_of(field: str) -> str | None:
    metadata = Settings.model_fields[field].metadata
    minima = [rule.ge for rule in metadata if hasattr(rule, "ge")]
    maxima = [rule.le for rule in metadata if hasattr(rule, "le")]
    return f"must be between {minima[0]} and {maxima[0]}" if minima and maxima else None


def _message_of(details: Mapping[str, Any]) -> str:
    return str(details["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")


def _state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state")
