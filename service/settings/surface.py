"""What may come in over HTTP: how many at once, and how slowly."""

from pydantic import Field
from pydantic_settings import BaseSettings

MAX_URL_BYTES = 8 * 1024
MAX_FIELD_BYTES = 16 * 1024
"""Of one header; another number than that of URLs, for aiohttp tells them apart by nothing else."""
MAX_FIELDS = 100
MAX_HEAD_BYTES = 64 * 1024
"""Of a head that is not whole yet."""


class SurfaceSettings(BaseSettings):
    """Connections, and the time that clients have."""

    session_request_timeout_seconds: float = Field(10, ge=0.1, le=600, allow_inf_nan=False)
    session_keep_alive_seconds: float = Field(75, ge=0.1, le=3600, allow_inf_nan=False)
    session_max_connections: int = Field(10_000, ge=1, le=1_000_000)
