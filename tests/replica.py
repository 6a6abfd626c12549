"""A replica for tests: `python -m service` as a process of its own, on a port of its own."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

_ADDRESS = re.compile(r"listening on (http://\S+)")
_STOP_SECONDS = 20


class Replica:
    """One service process. `settings` are its environment's variables; they are all it has beside PATH and HOME."""

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
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
            [sys.executable, "-m", "service"],
            cwd=Path(__file__).parent.parent,
            env={**inherited, "PORT": "0", **self._settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self.banner = ""
        for line in self._process.stdout:
            self.banner += line
            if "look inside" in line:
                return

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended; what it said meanwhile is added to `banner`."""
        assert self._process is not None
        said, _ = self._process.communicate(timeout=_STOP_SECONDS)
        self.banner += said
        return self._process.returncode

    def stop(self) -> int:
        """End it as an orchestrator would, if it still runs."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                return self.wait()
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise
        self._process.communicate()
        return self._process.returncode
