"""Run the `sh` blocks of a document in one shell, against a replica."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.docs.markdown import ROOT

_CURL = Path(__file__).parent / "curl.py"
_TIMEOUT_SECONDS = 50


class Transcript(NamedTuple):
    output: str
    requests: list[str]


def run(scripts: Iterable[str], url: str, folder: Path, **variables: str) -> Transcript:
    """Run the scripts one after the other in one shell, in `folder`; fail if a command fails.

    `requests` holds `METHOD status` for each call of curl.
    """
    for name, command in (("curl", f"{sys.executable} {_CURL}"), ("python", sys.executable)):
        _write_command(folder / name, command)
    log = folder / "requests"
    log.touch()
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "REPLICA_URL": url,
        "REQUEST_LOG": str(log),
    }
    completed = subprocess.run(
        ["sh", "-eu", "-c", "\n".join(scripts)],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return Transcript(completed.stdout, log.read_text().splitlines())


def _write_command(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
