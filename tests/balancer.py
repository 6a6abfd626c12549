"""HAProxy for tests: deploy/haproxy.cfg as it is, but for where it listens and how it finds replicas."""

import http.client
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from tests.redis_server import free_port

DEPLOY = Path(__file__).parent.parent / "deploy"
_START_SECONDS = 10
_ANSWER_SECONDS = 20


class Answer(NamedTuple):
    status: int
    body: Any
    headers: HTTPMessage

    @property
    def code(self) -> str | None:
        """Of a refusal; None of an answer that is none."""
        found: str | None = self.body.get("code")
        return found


class Balancer:
    """One HAProxy process in front of these addresses, `host:port` each; its files are put into `folder`."""

    def __init__(self, folder: Path, addresses: Sequence[str]) -> None:
        self._port = free_port()
        self._folder = folder
        shutil.copytree(DEPLOY / "errors", folder / "errors")
        (folder / "haproxy.cfg").write_text(_configuration(self._port, addresses))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["haproxy", "-db", "-f", str(self._folder / "haproxy.cfg")], stdout=log, stderr=log
            )
        latest = time.monotonic() + _START_SECONDS
        while not self._accepts():
            assert time.monotonic() < latest, (self._folder / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_SECONDS)

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """What it answers over a connection of its own."""
        with closing(self.connection()) as connection:
            return call_over(connection, method, path, body, **headers)

    def until(self, path: str, code: str | None) -> Answer:
        """The first answer to a GET with this code, None for one that is no refusal."""
        latest = time.monotonic() + _ANSWER_SECONDS
        while (answer := self.call("GET", path)).code != code:
            assert time.monotonic() < latest, answer
            time.sleep(0.02)
        return answer

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True


class Deserter:
    """Stands in for a replica: it is ready, and hangs up on every other request without a word, but counts them."""

    def __init__(self) -> None:
        self.requests = 0
        deserter = self

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
                    deserter.requests += 1
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


def call_over(
    connection: http.client.HTTPConnection, method: str, path: str, body: object = None, **headers: str
) -> Answer:
    sent = None if body is None else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, sent, {"Content-Type": "application/json", **named})
    response = connection.getresponse()
    return Answer(response.status, json.loads(response.read() or b"{}"), response.headers)


def _configuration(port: int, addresses: Sequence[str]) -> str:
    """The committed text with two lines replaced: the port is a free one, and the replicas are named, not looked up."""
    servers = "\n".join(f"    server replica{number} {address}" for number, address in enumerate(addresses, 1))
    text, bound = re.subn(r"bind :3000", f"bind 127.0.0.1:{port}", (DEPLOY / "haproxy.cfg").read_text())
    text, placed = re.subn(r"^ *server-template .*$", servers, text, flags=re.MULTILINE)
    assert (bound, placed) == (1, 1)
    return text
