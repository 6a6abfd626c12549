"""One address for several workers.

On Linux each has sockets of its own there, over which the kernel spreads connections by their hash (SO_REUSEPORT). Were
they to share one, whoever wakes first would take what is waiting: of four workers, two were seen to get everything.
"""

import asyncio
import socket
import sys
from collections.abc import Sequence
from typing import Any

from service.errors import StartupError
from service.settings import Settings

_EACH_ITS_OWN = sys.platform == "linux"
"""Elsewhere SO_REUSEPORT is something else, or nothing: there they share one."""

_WAITING_CONNECTIONS = 128


class Listening:
    """Holds addresses for as long as the service runs, for workers that are started again too."""

    def __init__(self, addresses: Sequence[tuple[int, Any]]) -> None:
        self._held = [_bound(family, address) for family, address in addresses]

    @property
    def url(self) -> str:
        return url_of(self._held[0].getsockname())

    def for_a_worker(self) -> list[socket.socket]:
        """Sockets that listen, one for each address. Connections to them wait until they are accepted or closed."""
        if _EACH_ITS_OWN:
            listeners = [_bound(held.family, held.getsockname()) for held in self._held]
        else:
            listeners = [held.dup() for held in self._held]
        for listener in listeners:
            listener.listen(_WAITING_CONNECTIONS)
        return listeners

    def close(self) -> None:
        for held in self._held:
            held.close()


async def listening(settings: Settings) -> Listening:
    """Hold the addresses of HOST and PORT. Raises StartupError, also where others that share a port listen on it."""
    try:
        alone = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, settings.host, settings.port, start_serving=False
        )
        addresses = [(found.family, found.getsockname()) for found in alone.sockets]
        alone.close()
        await alone.wait_closed()
        return Listening(addresses)
    except OSError as error:
        raise cannot_listen(settings, error) from None


def cannot_listen(settings: Settings, error: OSError) -> StartupError:
    return StartupError(f"HOST={settings.host} PORT={settings.port}: {error.strerror or error}")


def url_of(address: Any) -> str:
    """The URL of a socket's address."""
    host, port, *_ = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bound(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _EACH_ITS_OWN:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
