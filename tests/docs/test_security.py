"""Tests that SECURITY.md covers every requirement and that its references exist."""

import re

import pytest

from service.settings import Settings
from tests.docs import markdown

PAGE = markdown.document("SECURITY.md")
README = markdown.document("README.md")

CHAPTER_7 = (
    *(f"7.1.{number}" for number in (1, 2, 3)),
    *(f"7.2.{number}" for number in (1, 2, 3, 4)),
    *(f"7.3.{number}" for number in (1, 2)),
    *(f"7.4.{number}" for number in (1, 2, 3, 4, 5)),
    *(f"7.5.{number}" for number in (1, 2, 3)),
    *(f"7.6.{number}" for number in (1, 2)),
)
"""The requirements of OWASP ASVS 5.0.0, chapter V7."""

CHEAT_SHEET = (
    "Session ID Name Fingerprinting",
    "Session ID Length",
    "Session ID Entropy",
    "Session ID Content (or Value)",
    "Built-in Session Management Implementations",
    "Used vs. Accepted Session ID Exchange Mechanisms",
    "Transport Layer Security",
    "Secure Attribute",
    "HttpOnly Attribute",
    "SameSite Attribute",
    "Domain and Path Attributes",
    "Expire and Max-Age Attributes",
    "Session ID Generation and Verification: Permissive and Strict Session Management",
    "Manage Session ID as Any Other User Input",
    "Renew the Session ID After Any Privilege Level Change",
    "Considerations When Using Multiple Cookies",
    "Idle Timeout",
    "Absolute Timeout",
    "Renewal Timeout",
    "Manual Session Expiration",
    "Logout Button",
    "Web Content Caching",
    "Initial Login Timeout",
    "Force Session Logout On Web Browser Window Close Events",
    "Disable Web Browser Cross-Tab Sessions",
    "Automatic Client Logout",
    "Session ID Guessing and Brute Force Detection",
    "Detecting Session ID Anomalies",
    "Binding the Session ID to Other User Properties",
    "Logging Sessions Life Cycle: Monitoring Creation, Usage, and Destruction of Session IDs",
    "Simultaneous Session Logons",
    "Session Management WAF Protections",
)
"""The sections of the OWASP Session Management Cheat Sheet that contain requirements."""

STATUSES = {"met", "by setting", "in part", "not met", "front end"}


REQUIREMENTS = markdown.table_rows(markdown.section(PAGE, "OWASP ASVS 5.0.0, chapter V7: session management"))
SECTIONS = markdown.table_rows(markdown.section(PAGE, "OWASP Session Management Cheat Sheet"))


def test_every_requirement_of_chapter_7_has_a_row() -> None:
    assert tuple(number for number, *_ in REQUIREMENTS) == CHAPTER_7


def test_every_section_of_the_cheat_sheet_has_a_row() -> None:
    assert tuple(section for section, *_ in SECTIONS) == CHEAT_SHEET


def test_every_row_has_a_known_status() -> None:
    assert {row[-2] for row in (*REQUIREMENTS, *SECTIONS)} == STATUSES


def test_every_row_has_an_explanation_unless_the_front_end_is_responsible() -> None:
    unexplained = [row[0] for row in (*REQUIREMENTS, *SECTIONS) if row[-2] != "front end" and not row[-1]]

    assert unexplained == []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:service|tests|deploy)/[\w./-]+)`", PAGE))))
def test_referenced_files_exist(path: str) -> None:
    assert (markdown.ROOT / path).is_file()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:SESSION_|TRUSTED_)\w+)", PAGE))))
def test_referenced_settings_exist(name: str) -> None:
    assert name.lower() in Settings.model_fields


def test_the_readme_links_to_it() -> None:
    assert "](SECURITY.md)" in README
