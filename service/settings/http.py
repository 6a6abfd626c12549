"""What may come in over HTTP: how many at once, how slowly, and from pages of which sites."""

import re

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

MAX_URL_BYTES = 8 * 1024
MAX_FIELD_BYTES = 16 * 1024
"""Of one header; another number than that of URLs, for aiohttp tells them apart by nothing else."""
MAX_FIELDS = 100
MAX_HEAD_BYTES = 64 * 1024
"""Of a head that is not whole yet."""

_ORIGIN = re.compile(r"https?://[a-z0-9.\-_\[\]:]+(?<!:)")


class SurfaceSettings(BaseSettings):
    """Connections, the time that clients have, and other sites."""

    session_request_timeout_seconds: float = Field(10, ge=0.1, le=600, allow_inf_nan=False)
    session_keep_alive_seconds: float = Field(75, ge=0.1, le=3600, allow_inf_nan=False)
    session_max_connections: int = Field(10_000, ge=1, le=1_000_000)
    session_cors_origins: str = ""

    @property
    def cors_origins(self) -> frozenset[str]:
        return _entries_of(self.session_cors_origins)

    @field_validator("session_cors_origins")
    @classmethod
    def _origins_are_as_browsers_say_them(cls, origins: str) -> str:
        entries = _entries_of(origins)
        for entry in entries - {"*"}:
            if not _ORIGIN.fullmatch(entry):
                raise ValueError(
                    "must be origins as browsers say them, https://app.example or http://localhost:5173, or *"
                )
        if "*" in entries and len(entries) > 1:
            raise ValueError("must be * alone, or origins")
        return origins


def _entries_of(origins: str) -> frozenset[str]:
    return frozenset(origins.replace(",", " ").split())
