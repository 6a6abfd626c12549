"""What `make check` makes of pip-audit's answers; a stand-in gives them."""

import json
import sys

import pytest

from tests.dependencies import Verdict, judged

CLEAN = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
HOLED = {"name": "aiohttp", "version": "3.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.14.4"], "aliases": []}]}
UNFIXED = {"name": "redis", "version": "8.1", "vulns": [{"id": "PYSEC-2", "fix_versions": [], "aliases": []}]}
SKIPPED = {"name": "session-service", "skip_reason": "Dependency not found on PyPI and could not be audited"}


def judged_of(*dependencies: object, status: int = 0) -> Verdict:
    return judged_saying(stdout=json.dumps({"dependencies": dependencies, "fixes": []}), status=status)


def judged_saying(*, stdout: str = "", stderr: str = "", status: int = 1) -> Verdict:
    program = f"import sys; sys.stdout.write({stdout!r}); sys.stderr.write({stderr!r}); sys.exit({status})"
    return judged([sys.executable, "-c", program])


def test_a_known_vulnerability_fails() -> None:
    verdict = judged_of(CLEAN, HOLED, UNFIXED, SKIPPED, status=1)

    assert not verdict.is_passed
    assert verdict.line.splitlines() == [
        "aiohttp 3.0: PYSEC-1, fixed in 3.14.4",
        "redis 8.1: PYSEC-2, fixed in no version yet",
    ]


def test_without_one_it_passes_and_names_what_the_index_does_not_know() -> None:
    assert judged_of(CLEAN, SKIPPED) == Verdict(
        True, "No known vulnerabilities in 1 installed packages; not audited: session-service"
    )


def test_an_index_that_knows_nothing_is_not_called_clean() -> None:
    verdict = judged_of(SKIPPED)

    assert verdict.is_passed
    assert "NOT audited" in verdict.line


@pytest.mark.parametrize(
    "last_line",
    [
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='index.example', port=443): Max retries",
        "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='index.example', port=443): Read timed out.",
        "requests.exceptions.ProxyError: HTTPSConnectionPool(host='index.example', port=443): Max retries",
        "pip_audit._service.interface.ServiceError",
        "ERROR:pip_audit._cli:Tip: your network may be blocking this service. Try another service with `-s SERVICE`",
    ],
)
def test_an_index_that_cannot_be_reached_passes_and_is_told_of_in_a_line(last_line: str) -> None:
    verdict = judged_saying(stderr=f"Traceback (most recent call last):\n  …\n{last_line}\n")

    assert verdict.is_passed
    assert verdict.line.endswith("NOT audited for known vulnerabilities: the index cannot be reached")


def test_one_that_answers_too_late_passes_too() -> None:
    verdict = judged([sys.executable, "-c", "import signal; signal.pause()"], longest_seconds=0.2)

    assert verdict.is_passed
    assert verdict.line.endswith("NOT audited for known vulnerabilities: no answer in 0.2 s")


def test_a_tool_that_fails_or_is_missing_fails() -> None:
    assert judged_saying(stderr="No module named pip_audit") == Verdict(
        False, "pip-audit failed with 1: No module named pip_audit"
    )
