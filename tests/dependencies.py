"""Audit the installed packages for known vulnerabilities: `python -m tests.dependencies`, a part of `make check`.

A vulnerability fails the audit. An unreachable package index does not; the output states it. An index that does not
know any of the packages, such as a mirror, does not count as an audit, although pip-audit reports success.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

PIP_AUDIT = (sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--timeout=5")
TIMEOUT_SECONDS = 60

_UNREACHABLE = ("ConnectionError", "Timeout", "ProxyError", "SSLError", "ServiceError", "your network may be blocking")
"""The last line of pip-audit's output contains one of these if the index is unreachable."""


class AuditResult(NamedTuple):
    is_passed: bool
    line: str


def audit(command: Sequence[str], timeout_seconds: float = TIMEOUT_SECONDS) -> AuditResult:
    """Run pip-audit, or a replacement for it, and interpret its output."""
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired:
        return _not_audited(f"no response within {timeout_seconds:g} s")
    if completed.stdout.strip():
        return _result_from(json.loads(completed.stdout)["dependencies"])
    last_line = (completed.stderr.strip().splitlines() or ["no output"])[-1]
    if any(word in last_line for word in _UNREACHABLE):
        return _not_audited("the package index is unreachable")
    return AuditResult(False, f"pip-audit failed with {completed.returncode}: {last_line}")


def _result_from(dependencies: Sequence[dict[str, Any]]) -> AuditResult:
    audited = [package for package in dependencies if "vulns" in package]
    findings = [_finding(package, vulnerability) for package in audited for vulnerability in package["vulns"]]
    if findings:
        return AuditResult(False, "\n".join(findings))
    if not audited:
        return _not_audited("the package index does not know any of them")
    unknown = [package["name"] for package in dependencies if "skip_reason" in package]
    suffix = f"; not audited: {', '.join(unknown)}" if unknown else ""
    return AuditResult(True, f"No known vulnerabilities in {len(audited)} installed packages{suffix}")


def _not_audited(cause: str) -> AuditResult:
    return AuditResult(True, f"The installed packages were NOT audited for known vulnerabilities: {cause}")


def _finding(package: dict[str, Any], vulnerability: dict[str, Any]) -> str:
    fixed_in = ", ".join(vulnerability["fix_versions"]) or "no version yet"
    return f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed_in}"


if __name__ == "__main__":
    result = audit(PIP_AUDIT)
    print(result.line)  # noqa: T201
    sys.exit(not result.is_passed)
