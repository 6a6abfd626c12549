"""A replica for tests: `python -m service` as a process of its own, on a port of its own."""

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

COMMAND = [sys.executable, "-m", "service"]
_ADDRESS = re.compile(r"listening on (http://\S+)")
_START_SECONDS = 50  # on a busy machine
_ANSWER_SECONDS = 20
_STOP_SECONDS = 20


class Replica:
    """One service. `settings` are its environment's variables; they are all it has beside PATH and HOME.

    `words` are said on its command line.
    """

    def __init__(self, words: Sequence[str] = (), **settings: str) -> None:
        self._words = words
        self.settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._announced = threading.Event()
        self._heard = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self.banner = ""

    @property
    def url(self) -> str:
        found = _ADDRESS.search(self.banner)
        assert found, self.banner
        return found[1]

    @property
    def sessions(self) -> str:
        return self.url + "/api/messaging/sessions"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait for its banner, or for its end: `banner` then holds what it said."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._process = subprocess.Popen(
            [*COMMAND, *self._words],
            cwd=Path(__file__).parent.parent,
            env={**inherited, "PORT": "0", **self.settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listener.start()
        assert self._announced.wait(_START_SECONDS), self.banner

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """The status and the body of its answer."""
        address = urlsplit(self.url)
        assert address.hostname is not None
        with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=_ANSWER_SECONDS)) as connection:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def line_with(self, words: str) -> str:
        """What it says in the line with these words, once it has said them."""
        with self._heard:
            assert self._heard.wait_for(lambda: words in self.banner, _ANSWER_SECONDS), self.banner
        return next(line for line in self.banner.splitlines() if words in line)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended; `banner` is then all it ever said."""
        assert self._process is not None
        code = self._process.wait(_STOP_SECONDS)
        self._listener.join(_STOP_SECONDS)
        return code

    def stop(self) -> int:
        """End it as an orchestrator would, if it still runs."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def _listen(self) -> None:
        """Hear it out to its end: were nobody listening, a full pipe would stop it."""
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._heard:
                    self.banner += line
                    self._heard.notify_all()
                if "look inside" in line:
                    self._announced.set()
        self._announced.set()
