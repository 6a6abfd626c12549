"""Starts service processes quickly: a server process imports the service once, and forks for each start."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TextIO

_HEADER_BYTES = 8
_ROOT = Path(__file__).parent.parent
_LOCK = threading.Lock()


class ForkedProcess:
    """A service process, with the part of the interface of subprocess.Popen that tests need."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        output, process_output = os.pipe()
        results, process_results = os.pipe()
        request = json.dumps([list(arguments), dict(environment)]).encode()
        with _LOCK:
            server = _server()
            socket.send_fds(server, [b"%*d" % (_HEADER_BYTES, len(request))], [process_output, process_results])
            server.sendall(request)
        os.close(process_output)
        os.close(process_results)
        self.stdout: TextIO = os.fdopen(output, encoding="utf-8")
        self._results: TextIO = os.fdopen(results, encoding="ascii")
        self._code: int | None = None
        self.pid = int(self._results.readline())

    def send_signal(self, number: int) -> None:
        if self._code is None and not self._has_exited(0):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """Return the exit code, or minus the number of the signal that ended the process. Raises TimeoutExpired."""
        if self._code is None:
            if not self._has_exited(timeout):
                raise subprocess.TimeoutExpired("the service", timeout)
            self._code = int(self._results.readline())
            self._results.close()
        return self._code

    def _has_exited(self, timeout: float) -> bool:
        poll = select.poll()  # unlike select(), for any number of open files
        poll.register(self._results, select.POLLIN)
        return bool(poll.poll(timeout * 1000))


@cache
def _server() -> socket.socket:
    """Start the fork server. It ends before this process."""
    own, other = socket.socketpair()
    with other:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(other.fileno())],
            cwd=_ROOT,
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[other.fileno()],
        )
    atexit.register(_stop, own, server)
    return own


def _stop(requests: socket.socket, server: subprocess.Popen[bytes]) -> None:
    requests.close()
    server.wait()


def _fork_for_each_request(requests: socket.socket) -> None:
    """Return in each new service process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    while True:
        header, descriptors, _, _ = socket.recv_fds(requests, _HEADER_BYTES, 2)
        if not header:
            sys.exit()
        request = requests.recv(int(header), socket.MSG_WAITALL)
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output, results = descriptors
    if pid := os.fork():
        os.close(output)
        _report(pid, results)
    os.close(results)
    arguments, environment = json.loads(request)
    _assume_identity(arguments, environment, output)


def _report(pid: int, results: int) -> None:
    """Write the id of the service process, and its exit code when it ends."""
    os.write(results, b"%d\n" % pid)
    os.write(results, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _assume_identity(arguments: list[str], environment: dict[str, str], output: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments


if __name__ == "__main__":
    from service.__main__ import main

    _fork_for_each_request(socket.socket(fileno=int(sys.argv[1])))
    main()
