"""Where the audit is kept."""

import os
from pathlib import Path

from pydantic import field_validator
from pydantic_settings import BaseSettings


class AuditSettings(BaseSettings):
    """`off`, `stderr`, or a path."""

    session_audit_log: str = "stderr"

    @property
    def audit_file(self) -> Path | None:
        return Path(self.session_audit_log) if os.sep in self.session_audit_log else None

    @field_validator("session_audit_log")
    @classmethod
    def _audit_has_a_place(cls, place: str) -> str:
        """A misspelt word makes no file."""
        if place not in ("off", "stderr") and os.sep not in place:
            raise ValueError(f"must be off, stderr, or the path of a file, with a {os.sep} in it")
        return place
