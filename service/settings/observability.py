"""Settings of logs, the audit log and traces."""

import os
from pathlib import Path
from typing import Literal

from pydantic import field_validator
from pydantic_settings import BaseSettings

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


class ObservabilitySettings(BaseSettings):
    """The audit log is `off`, `stderr`, or a path."""

    session_log_level: LogLevel = "info"
    session_log_format: LogFormat = "auto"
    session_audit_log: str = "stderr"
    session_tracing: bool = False

    @property
    def audit_file(self) -> Path | None:
        return Path(self.session_audit_log) if os.sep in self.session_audit_log else None

    @field_validator("session_audit_log")
    @classmethod
    def _validate_audit_log(cls, destination: str) -> str:
        if destination not in ("off", "stderr") and os.sep not in destination:
            raise ValueError(f"must be off, stderr, or a path that contains {os.sep}")
        return destination
