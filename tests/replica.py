"""Start the service as a process of its own, and call it over HTTP."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.settings import Settings
from tests.fork_server import ForkedProcess
from tests.secrets_in_logs import secrets_in

STORE_TIMEOUT = {"SESSION_STORE_TIMEOUT_SECONDS": "10"}
"""A timeout that no call exceeds on a busy machine."""

DEFAULT_COMMAND = COMMAND = [sys.executable, "-m", "service"]
_ADDRESS = re.compile(r"listening on (http://\S+)")
_LAST_BANNER_LINE = "look inside"
_START_SECONDS = 50  # on a busy machine
_RESPONSE_SECONDS = 40
_STOP_SECONDS = 40


class Replica:
    """One process of `python -m service`. Without arguments, it is forked from a process that has imported the service.

    `arguments` are its command line. Its environment consists of `settings`, PATH, HOME, PORT=0
    and a long store timeout.
    """

    def __init__(self, arguments: Sequence[str] = (), **settings: str) -> None:
        self._arguments = arguments
        self.settings = settings
        self.output = ""
        self._process: subprocess.Popen[str] | ForkedProcess | None = None
        self._has_started_or_exited = threading.Event()
        self._output_changed = threading.Condition()
        self._reader = threading.Thread(target=self._read_output, daemon=True)

    @property
    def url(self) -> str:
        found = _ADDRESS.search(self.output)
        assert found, self.output
        return found[1]

    @property
    def sessions_url(self) -> str:
        return self.url + "/api/messaging/sessions"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def _is_forked(self) -> bool:
        """Whether a fork is equivalent: libraries read other variables when they are imported."""
        has_only_settings = all(name.lower() in Settings.model_fields for name in self.settings)
        return COMMAND == DEFAULT_COMMAND and not self._arguments and has_only_settings

    def start(self) -> None:
        """Start the process and wait until it has printed its banner or has exited."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = {**inherited, "PORT": "0", **STORE_TIMEOUT, **self.settings}
        if self._is_forked:
            self._process = ForkedProcess(self._arguments, environment)
        else:
            self._process = subprocess.Popen(
                [*COMMAND, *self._arguments],
                cwd=Path(__file__).parent.parent,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._reader.start()
        assert self._has_started_or_exited.wait(_START_SECONDS), self.output

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a JSON request. Return the status and the decoded body of the response."""
        address = urlsplit(self.url)
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=_RESPONSE_SECONDS)
        with closing(connection):
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def wait_for_line(self, text: str) -> str:
        """Wait until the output contains the text. Return the first line that contains it."""
        with self._output_changed:
            assert self._output_changed.wait_for(lambda: text in self.output, _RESPONSE_SECONDS), self.output
        return next(line for line in self.output.splitlines() if text in line)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until the process has exited and `output` is complete. Return the exit code.

        Fails if the output contains a secret.
        """
        assert self._process is not None
        code = self._process.wait(_STOP_SECONDS)
        self._reader.join(_STOP_SECONDS)
        assert secrets_in(self.output) == set()
        return code

    def stop(self) -> int:
        """Send SIGTERM, wait for the process and return its exit code. Kill a process that does not stop in time."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def _read_output(self) -> None:
        """Read until the process exits, because a full pipe would block it."""
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._output_changed:
                    self.output += line
                    self._output_changed.notify_all()
                if _LAST_BANNER_LINE in line:
                    self._has_started_or_exited.set()
        self._has_started_or_exited.set()
