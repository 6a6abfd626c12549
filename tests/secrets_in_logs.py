"""Search logs for the secrets that the tests use."""

import re

from tests.redis_server import ADMIN

_SECRETS = re.compile(
    "|".join(
        (
            r"ssk_[\w-]{20,}",  # API keys
            r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+",  # tokens
            "hunter2",  # passwords in invalid settings and URLs
            "a-secret-for-tests-of-at-least-32-bytes",
            re.escape(ADMIN.password),
            "5e" * 32,  # the shared secret
        )
    )
)


def secrets_in(log: str) -> set[str]:
    """Return the API keys, tokens, passwords and other secrets in a log."""
    return set(_SECRETS.findall(log))
