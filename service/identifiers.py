"""Identifiers of users and agents."""

import re

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def parse_uuid(text: object) -> str:
    """Return a UUID in lower case. Raises ValueError unless `text` is a UUID in the 36-character form."""
    if not isinstance(text, str) or not _UUID.fullmatch(text):
        raise ValueError("must be a UUID in the 36-character form")
    return text.lower()
