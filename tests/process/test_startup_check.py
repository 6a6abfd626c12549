"""The check before the start rejects settings that only the application can check, with one line."""

import pytest

from service.errors import StartupError
from service.process.serve import check_startup
from service.settings import load_settings

UNKNOWN_KEY = "ssk_a-key-that-is-in-no-list"


async def startup_error(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> str:
    """Return the error of a start with this environment variable."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(StartupError) as error:
        await check_startup(load_settings())
    return str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@h:nonsense",
        "redis://:hunter2@h:99999",
        "redis://:hunter2@h?socket_timeout=soon",
        "redis://:hunter2@h?nonsense=1",
        "rediss://:hunter2@h?ssl_cert_reqs=bogus",
        "redis://:hunter2@[::1",
        "redis://:hunter2/rest@h",
        "redis://:hunter2#rest@h",
        "redis://h?password=hunter2&socket_timeout=soon",
        "http://:hunter2@h",
        "",
    ],
)
async def test_an_invalid_redis_url_is_rejected_without_its_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    error = await startup_error(monkeypatch, "REDIS_URL", url)

    assert error.startswith("REDIS_URL")
    assert "\n" not in error
    assert "hunter2" not in error


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SESSION_API_KEYS_FILE", "/nowhere", "SESSION_API_KEYS_FILE=/nowhere: No such file or directory"),
        ("SESSION_API_KEYS_FILE", "/dev/null", "SESSION_API_KEYS_FILE=/dev/null: must be a regular file"),
        ("SESSION_API_KEYS", f"web:read:sha256:{UNKNOWN_KEY}", "SESSION_API_KEYS: entry 1 (web): must end in sha256"),
        ("SESSION_RATE_PER_CALLER", "9/day", "SESSION_RATE_PER_CALLER: requires authentication; set"),
        ("SESSION_GUESSES_PER_CALLER", "9/day", "SESSION_GUESSES_PER_CALLER: requires authentication; set"),
        ("SESSION_AUDIT_LOG", "/nowhere/audit.log", "SESSION_AUDIT_LOG=/nowhere/audit.log cannot be opened"),
        ("SESSION_WORKERS", "65", "SESSION_WORKERS must be between 1 and 64 (got 65)"),
    ],
)
async def test_an_invalid_setting_is_rejected(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    error = await startup_error(monkeypatch, variable, value)

    assert error.startswith(message)
    assert "\n" not in error
    assert UNKNOWN_KEY not in error
