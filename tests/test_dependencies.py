"""The audit of installed packages, with a replacement for pip-audit."""

import json
import sys

import pytest

from tests.dependencies import AuditResult, audit

CLEAN = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
VULNERABLE = {
    "name": "aiohttp",
    "version": "3.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.14.4"], "aliases": []}],
}
UNFIXED = {"name": "redis", "version": "8.1", "vulns": [{"id": "PYSEC-2", "fix_versions": [], "aliases": []}]}
SKIPPED = {"name": "session-service", "skip_reason": "Dependency not found on PyPI and could not be audited"}


def audit_of(*dependencies: object, status: int = 0) -> AuditResult:
    return audit_with_output(stdout=json.dumps({"dependencies": dependencies, "fixes": []}), status=status)


def audit_with_output(*, stdout: str = "", stderr: str = "", status: int = 1) -> AuditResult:
    program = f"import sys; sys.stdout.write({stdout!r}); sys.stderr.write({stderr!r}); sys.exit({status})"
    return audit([sys.executable, "-c", program])


def test_a_known_vulnerability_fails() -> None:
    result = audit_of(CLEAN, VULNERABLE, UNFIXED, SKIPPED, status=1)

    assert not result.is_passed
    assert result.line.splitlines() == [
        "aiohttp 3.0: PYSEC-1, fixed in 3.14.4",
        "redis 8.1: PYSEC-2, fixed in no version yet",
    ]


def test_packages_without_vulnerabilities_pass_and_unknown_packages_are_listed() -> None:
    assert audit_of(CLEAN, SKIPPED) == AuditResult(
        True, "No known vulnerabilities in 1 installed packages; not audited: session-service"
    )


def test_an_index_without_the_packages_does_not_count_as_an_audit() -> None:
    result = audit_of(SKIPPED)

    assert result.is_passed
    assert "NOT audited" in result.line


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
def test_an_unreachable_index_passes_and_is_reported(last_line: str) -> None:
    result = audit_with_output(stderr=f"Traceback (most recent call last):\n  …\n{last_line}\n")

    assert result.is_passed
    assert result.line.endswith("NOT audited for known vulnerabilities: the package index is unreachable")


def test_a_timeout_passes_and_is_reported() -> None:
    result = audit([sys.executable, "-c", "import signal; signal.pause()"], timeout_seconds=0.2)

    assert result.is_passed
    assert result.line.endswith("NOT audited for known vulnerabilities: no response within 0.2 s")


def test_a_failing_or_missing_pip_audit_fails() -> None:
    assert audit_with_output(stderr="No module named pip_audit") == AuditResult(
        False, "pip-audit failed with 1: No module named pip_audit"
    )
