"""Every knob of the service, each an environment variable of the same name in capitals."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from service.errors import StartupError
from service.observability import log
from service.settings.audit import AuditSettings
from service.settings.auth import AccessSettings
from service.settings.caps import CapSettings
from service.settings.http import SurfaceSettings
from service.settings.idempotency import CreationSettings
from service.settings.rate_limits import LimitSettings
from service.settings.redis_url import parse_redis_url
from service.settings.timeouts import LifeSettings

MAX_METADATA_BYTES = 10 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_WORKERS = 64

_NOT_REPEATED = {"REDIS_URL", "SESSION_API_KEYS", "SESSION_JWT_SECRET", "SESSION_JWT_JWKS_URL"}
"""They hold secrets, or may."""
_SAID_OF = {
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
}


class Settings(
    LifeSettings, CapSettings, AccessSettings, LimitSettings, CreationSettings, AuditSettings, SurfaceSettings
):
    """What the service was told."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(3000, ge=0, le=65535)
    redis_url: SecretStr | None = None
    session_workers: int = Field(1, ge=1, le=MAX_WORKERS)

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

    @field_validator("redis_url")
    @classmethod
    def _url_is_of_a_known_kind(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        if not url.get_secret_value():
            raise ValueError("is empty; leave it unset for the embedded server")
        parse_redis_url(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _not_every_page_may_do_everything(self) -> Self:
        """Where nobody is asked who they are, a page could do it from the browser of whoever reaches the service."""
        if "*" in self.cors_origins and not self.requires_authentication:
            raise ValueError("SESSION_CORS_ORIGINS=*: needs keys or tokens; without them name the origins")
        return self

    @field_validator("session_key_prefix")
    @classmethod
    def _prefix_leaves_hash_tags_alone(cls, prefix: str) -> str:
        if not prefix.isprintable() or set(prefix) & set("{} "):
            raise ValueError("may not hold braces, blanks or control characters")
        return prefix


def load_settings() -> Settings:
    """The settings of the environment. Raises StartupError with one line for every variable at fault."""
    try:
        return Settings()
    except ValidationError as error:
        raise StartupError("\n".join(_in_one_line(fault) for fault in error.errors())) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """The SESSION_ variables that no knob reads: most likely misspelt."""
    known = {name.upper() for name in Settings.model_fields}
    return sorted(name for name in environment if name.upper().startswith("SESSION_") and name.upper() not in known)


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
