"""Settings of HTTP connections, the limits of requests, and lists of IP networks."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

MAX_URL_BYTES = 8 * 1024
MAX_FIELD_BYTES = 16 * 1024
"""Limit of one header. It must differ from MAX_URL_BYTES: aiohttp's error contains only the limit."""
MAX_FIELDS = 100
MAX_HEAD_BYTES = 64 * 1024
"""Limit of all headers together, while they are incomplete."""

_WEB_ORIGIN = re.compile(r"(https?)://([a-z0-9.\-_]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?")
_APP_ORIGIN = re.compile(r"(?!https?:|file:)[a-z][a-z0-9+.\-]*://[A-Za-z0-9.\-_]+(?::\d{1,5})?")
"""The origin of a mobile app or a browser extension, such as capacitor://localhost."""
_HOST = re.compile(r"[a-z0-9.\-_]*[a-z0-9\-_]|[0-9a-f:.]*:[0-9a-f:.]*|\*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


Network = IPv4Network | IPv6Network


class HttpSettings(BaseSettings):
    """Connections and their timeouts, and origins of web pages."""

    session_request_timeout_seconds: float = Field(10, ge=0.1, le=600, allow_inf_nan=False)
    session_keep_alive_seconds: float = Field(75, ge=0.1, le=3600, allow_inf_nan=False)
    session_max_connections: int = Field(10_000, ge=1, le=1_000_000)
    session_cors_origins: str = ""
    session_allowed_hosts: str = ""

    @property
    def cors_origins(self) -> frozenset[str]:
        """The origins as browsers write them."""
        return frozenset(map(_normalize_origin, _split(self.session_cors_origins)))

    @property
    def allowed_hosts(self) -> frozenset[str]:
        return _split(self.session_allowed_hosts.lower())

    @field_validator("session_allowed_hosts")
    @classmethod
    def _validate_allowed_hosts(cls, hosts: str) -> str:
        for entry in _split(hosts.lower()):
            if not _HOST.fullmatch(entry):
                raise ValueError("must list names or addresses without ports, such as sessions.example, or *")
        return hosts

    @field_validator("session_cors_origins")
    @classmethod
    def _validate_cors_origins_format(cls, origins: str) -> str:
        entries = _split(origins)
        if "*" in entries and len(entries) > 1:
            raise ValueError("must be either * or a list of origins")
        for entry in entries:
            _normalize_origin(entry)
        return origins


def _split(origins: str) -> frozenset[str]:
    return frozenset(origins.replace(",", " ").split())


def _normalize_origin(origin: str) -> str:
    """Remove a default port. Raises ValueError if no browser sends the origin."""
    if origin == "*" or _APP_ORIGIN.fullmatch(origin):
        return origin
    match = _WEB_ORIGIN.fullmatch(origin)
    if match is None or not _is_host(match[2]) or not 0 < int(match[3] or 1) < 65_536:
        raise ValueError("must list origins such as https://app.example or http://localhost:5173")
    scheme, host, port = match.groups()
    is_default = port is None or int(port) == _DEFAULT_PORTS[scheme]
    return f"{scheme}://{host}" if is_default else f"{scheme}://{host}:{int(port)}"


def _is_host(host: str) -> bool:
    """Whether it is a name, or an IP address in the form that browsers send."""
    bare = host.strip("[]")
    if bare == host and not host.rpartition(".")[2].isdecimal():
        return True
    try:
        return str(ip_address(bare)) == bare
    except ValueError:
        return False


def parse_networks(text: str) -> list[Network]:
    """Parse addresses and networks separated by whitespace or commas. Raises ValueError with the first wrong one."""
    return [_parse_network(word) for word in text.replace(",", " ").split()]


def _parse_network(word: str) -> Network:
    """Convert networks of IPv4 addresses in IPv6 addresses, because client addresses are converted too."""
    try:
        network = ip_network(word)
    except ValueError as error:
        raise ValueError(f"{word!r} must be an IP address or a network ({error})") from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network
