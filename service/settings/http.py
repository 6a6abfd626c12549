"""Settings of HTTP connections, the limits of requests, and lists of IP networks."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

MAX_URL_BYTES = 8 * 1024
MAX_FIELD_BYTES = 16 * 1024
"""Limit of one header. It must differ from MAX_URL_BYTES: aiohttp's error contains only the limit."""
MAX_FIELDS = 100
MAX_HEAD_BYTES = 64 * 1024
"""Limit of all headers together, while they are incomplete."""

_ORIGIN = re.compile(r"https?://[a-z0-9.\-_\[\]:]+(?<!:)")


Network = IPv4Network | IPv6Network


class HttpSettings(BaseSettings):
    """Connections and their timeouts, and origins of web pages."""

    session_request_timeout_seconds: float = Field(10, ge=0.1, le=600, allow_inf_nan=False)
    session_keep_alive_seconds: float = Field(75, ge=0.1, le=3600, allow_inf_nan=False)
    session_max_connections: int = Field(10_000, ge=1, le=1_000_000)
    session_cors_origins: str = ""

    @property
    def cors_origins(self) -> frozenset[str]:
        return _split(self.session_cors_origins)

    @field_validator("session_cors_origins")
    @classmethod
    def _validate_cors_origins_format(cls, origins: str) -> str:
        entries = _split(origins)
        if "*" in entries and len(entries) > 1:
            raise ValueError("must be either * or a list of origins")
        for entry in entries - {"*"}:
            if not _ORIGIN.fullmatch(entry):
                raise ValueError("must list origins such as https://app.example or http://localhost:5173")
        return origins


def _split(origins: str) -> frozenset[str]:
    return frozenset(origins.replace(",", " ").split())


def parse_networks(text: str) -> list[Network]:
    """Parse addresses and networks separated by whitespace or commas. Raises ValueError with the first wrong one."""
    return [_parse_network(word) for word in text.replace(",", " ").split()]


def _parse_network(word: str) -> Network:
    try:
        return ip_network(word)
    except ValueError as error:
        raise ValueError(f"{word!r} must be an IP address or a network ({error})") from None
