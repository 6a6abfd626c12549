"""Authentication is configured by the settings, and required for other hosts."""

import re
from pathlib import Path

import pytest

from service.auth.authenticator import build_authenticator, require_authentication
from service.errors import StartupError, Unauthorized
from service.settings import Settings
from tests.auth.conftest import ENTRIES, KEYS, new_token

PUBLIC_HOSTS = ["0.0.0.0", "::", "", "192.0.2.1", "fd00::1", "127.example", "127.0.0.1.example", "::ffff:192.0.2.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_address_needs_no_authentication(host: str) -> None:
    require_authentication(Settings(host=host))


@pytest.mark.parametrize("host", PUBLIC_HOSTS)
def test_other_addresses_need_authentication(host: str) -> None:
    with pytest.raises(StartupError, match=f"^HOST={host}: requires authentication.*SESSION_ALLOW_ANONYMOUS=true"):
        require_authentication(Settings(host=host))


@pytest.mark.parametrize("host", PUBLIC_HOSTS)
def test_other_addresses_are_accepted_with_keys(host: str) -> None:
    require_authentication(Settings(host=host, session_api_keys=ENTRIES))


@pytest.mark.parametrize("host", PUBLIC_HOSTS)
def test_other_addresses_are_accepted_if_anonymous_access_is_allowed(host: str) -> None:
    require_authentication(Settings(host=host, session_allow_anonymous=True))


def test_authentication_is_off_by_default() -> None:
    assert build_authenticator(Settings()) is None


async def test_a_token_is_found_without_waiting_after_it_was_verified(settings: Settings) -> None:
    authenticator = build_authenticator(settings)
    assert authenticator is not None
    token = new_token("reports", scope="read")

    found = [authenticator.find_caller(token), await authenticator.verify(token), authenticator.find_caller(token)]

    assert [caller and caller.name for caller in found] == [None, "reports", "reports"]
    await authenticator.aclose()


async def test_without_tokens_an_unknown_key_is_rejected() -> None:
    authenticator = build_authenticator(Settings(session_api_keys=KEYS["read"].entry))
    assert authenticator is not None

    with pytest.raises(Unauthorized):
        await authenticator.verify("unknown")


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, "No such file or directory"), ("", "must hold at least one entry"), (b"\xff\xfe", "is not text")],
    ids=["missing", "empty", "binary"],
)
def test_a_key_file_must_be_readable(tmp_path: Path, content: str | bytes | None, error: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    with pytest.raises(StartupError, match=f"^SESSION_API_KEYS_FILE={re.escape(str(path))}: {error}"):
        build_authenticator(Settings(session_api_keys_file=path))
