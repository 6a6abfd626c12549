"""Run HAProxy with deploy/haproxy.cfg; only the port and the list of replicas are replaced."""

import http.client
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.redis_server import free_port

DEPLOY = Path(__file__).parent.parent / "deploy"
_START_SECONDS = 30
_TIMEOUT_SECONDS = 50


class Response(NamedTuple):
    status: int
    body: Any
    headers: HTTPMessage

    @property
    def error_code(self) -> str | None:
        code: str | None = self.body.get("code")
        return code


class Balancer:
    """One HAProxy process in front of `addresses` (`host:port`); its files are written to `folder`.

    `replacements` are parts of the configuration and what replaces them.
    """

    def __init__(
        self, folder: Path, addresses: Sequence[str], replacements: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._port = free_port()
        self._folder = folder
        shutil.copytree(DEPLOY / "errors", folder / "errors")
        (folder / "haproxy.cfg").write_text(_configuration(self._port, addresses, replacements))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["haproxy", "-db", "-f", str(self._folder / "haproxy.cfg")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._accepts_connections():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_SECONDS)

    def request(self, method: str, path: str, body: object = None, **headers: str) -> Response:
        """Send one request over a new connection."""
        with closing(self.connection()) as connection:
            return send_request(connection, method, path, body, **headers)

    def get_until(self, path: str, error_code: str | None) -> Response:
        """Repeat a GET until it returns this error code, or no error if `error_code` is None."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while (response := self.request("GET", path)).error_code != error_code:
            assert time.monotonic() < deadline, response
            time.sleep(0.02)
        return response

    def _accepts_connections(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True


class DisconnectingReplica:
    """A fake replica that is ready, but counts every other request and closes the connection without a response."""

    def __init__(self) -> None:
        self.requests = 0
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def parse_request(self) -> bool:
                if not super().parse_request():
                    return False
                if self.path == "/readyz":
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    replica.requests += 1
                    self.close_connection = True
                return False

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def send_request(
    connection: http.client.HTTPConnection, method: str, path: str, body: object = None, **headers: str
) -> Response:
    payload = None if body is None else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, payload, {"Content-Type": "application/json", **named})
    response = connection.getresponse()
    return Response(response.status, json.loads(response.read() or b"{}"), response.headers)


def _configuration(port: int, addresses: Sequence[str], replacements: Mapping[str, str]) -> str:
    """Replace the port and the DNS lookup of replicas in deploy/haproxy.cfg."""
    servers = "\n".join(f"    server replica{number} {address}" for number, address in enumerate(addresses, 1))
    text, ports = re.subn(r"bind :3000", f"bind 127.0.0.1:{port}", (DEPLOY / "haproxy.cfg").read_text())
    text, templates = re.subn(r"^ *server-template .*$", servers, text, flags=re.MULTILINE)
    assert (ports, templates) == (1, 3)
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return text
