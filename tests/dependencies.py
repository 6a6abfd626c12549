"""Known vulnerabilities of what is installed, by pip-audit: `python -m tests.dependencies`, a part of `make check`.

A finding fails. An index that cannot be reached does not: that is said in a line. pip-audit itself calls it clean where
the index answers and knows none of the packages, as mirrors do; here it is not.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

PIP_AUDIT = (sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--timeout=5")
LONGEST_SECONDS = 60

_UNREACHABLE = ("ConnectionError", "Timeout", "ProxyError", "SSLError", "ServiceError", "your network may be blocking")
"""Of these one is in the last line of what pip-audit says where it did not get an answer."""


class Verdict(NamedTuple):
    is_passed: bool
    line: str


def judged(command: Sequence[str], longest_seconds: float = LONGEST_SECONDS) -> Verdict:
    """What the answer of pip-audit, or of what stands in for it, means."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=longest_seconds, check=False)
    except subprocess.TimeoutExpired:
        return _not_audited(f"no answer in {longest_seconds:g} s")
    if ended.stdout.strip():
        return _of_report(json.loads(ended.stdout)["dependencies"])
    last_line = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if any(word in last_line for word in _UNREACHABLE):
        return _not_audited("the index cannot be reached")
    return Verdict(False, f"pip-audit failed with {ended.returncode}: {last_line}")


def _of_report(dependencies: Sequence[dict[str, Any]]) -> Verdict:
    audited = [found for found in dependencies if "vulns" in found]
    findings = [_said(found, fault) for found in audited for fault in found["vulns"]]
    if findings:
        return Verdict(False, "\n".join(findings))
    if not audited:
        return _not_audited("the index knows nothing of them")
    unknown = [found["name"] for found in dependencies if "skip_reason" in found]
    but = f"; not audited: {', '.join(unknown)}" if unknown else ""
    return Verdict(True, f"No known vulnerabilities in {len(audited)} installed packages{but}")


def _not_audited(why: str) -> Verdict:
    return Verdict(True, f"The installed packages were NOT audited for known vulnerabilities: {why}")


def _said(found: dict[str, Any], fault: dict[str, Any]) -> str:
    fixed_in = ", ".join(fault["fix_versions"]) or "no version yet"
    return f"{found['name']} {found['version']}: {fault['id']}, fixed in {fixed_in}"


if __name__ == "__main__":
    verdict = judged(PIP_AUDIT)
    print(verdict.line)  # noqa: T201
    sys.exit(not verdict.is_passed)
