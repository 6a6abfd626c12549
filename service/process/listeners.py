"""Listening sockets for several workers on one port.

On Linux each worker has its own sockets (SO_REUSEPORT), and the kernel distributes connections by their hash. If the
workers shared a socket, the distribution would be uneven: with four workers, some were seen without any connection.
"""

import asyncio
import socket
import sys
from typing import Any

from service.errors import StartupError
from service.settings import Settings

BACKLOG = 4096
"""Connections that wait until the process accepts them: more than `maxconn` in deploy/haproxy.cfg."""

_HAS_OWN_SOCKETS = sys.platform == "linux"
"""Other systems do not distribute connections between sockets on the same port. There the workers share a socket."""


async def open_listeners(settings: Settings, workers: int) -> list[socket.socket]:
    """Return sockets that listen on HOST and PORT: for each address, one for each worker.

    Raises StartupError if another process listens there, even one that would share the port.
    """
    try:
        exclusive = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, settings.host, settings.port, start_serving=False
        )
        addresses = [(found.family, found.getsockname()) for found in exclusive.sockets]
        exclusive.close()
        await exclusive.wait_closed()
        return [listener for family, address in addresses for listener in _listen(family, address, workers)]
    except OSError as error:
        raise cannot_listen(settings, error) from None


def without_queue(listener: socket.socket) -> socket.socket:
    """Return a socket on the address of `listener` that receives no connection until its `listen` is called.

    `listener` is closed, which resets the connections that wait in its queue. Returns it unchanged if workers share it.
    """
    if not _HAS_OWN_SOCKETS:
        return listener
    bound = _bound(listener.family, listener.getsockname())
    listener.close()
    return bound


def require_known_host(settings: Settings) -> None:
    """Raises StartupError if HOST is a name without an address. Conda and tcsh set HOST to one."""
    try:
        socket.getaddrinfo(settings.host or None, settings.port)
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise StartupError(
            f"HOST={settings.host}: {cause}; unset HOST to listen on 127.0.0.1 (conda and tcsh may set it), or set it "
            "to an address of this machine"
        ) from None


def cannot_listen(settings: Settings, error: OSError) -> StartupError:
    return StartupError(f"HOST={settings.host} PORT={settings.port}: {error.strerror or error}")


def url_of(address: Any) -> str:
    """Return the URL of a socket's address."""
    host, port, *_ = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(family: int, address: Any, workers: int) -> list[socket.socket]:
    if _HAS_OWN_SOCKETS:
        return [_listener(family, address) for _ in range(workers)]
    shared = _listener(family, address)
    return [shared, *(shared.dup() for _ in range(workers - 1))]


def _listener(family: int, address: Any) -> socket.socket:
    listener = _bound(family, address)
    listener.listen(BACKLOG)
    return listener


def _bound(family: int, address: Any) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _HAS_OWN_SOCKETS:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
