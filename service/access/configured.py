"""The guard that the settings ask for, and where the service may listen without one."""

from ipaddress import ip_address
from typing import TYPE_CHECKING

from service.access.api_keys import ApiKeys, read_entries
from service.access.guard import Admit, Guard, KeyRing
from service.access.key_file import KeyFile, why
from service.access.owners import Owners
from service.lanes.lane import Lane
from service.life.keys import Keys
from service.settings import CannotStart, Settings
from service.telemetry.audit import Audit

if TYPE_CHECKING:
    from service.access.tokens import Tokens


def guard_of(
    settings: Settings, lane: Lane, keys: Keys, admit: Admit | None = None, audit: Audit | None = None
) -> Guard | None:
    """None where there are neither keys nor tokens. Raises CannotStart."""
    if not settings.is_guarded:
        return None
    return Guard(_key_ring(settings), _tokens(settings), Owners(lane, keys), admit, audit)


def require_guarded(settings: Settings) -> None:
    """Raises CannotStart where others than this machine could reach a service that asks nobody who they are."""
    if not (settings.is_guarded or settings.session_allow_anonymous or _is_loopback(settings.host)):
        raise CannotStart(
            f"HOST={settings.host}: whoever reaches it could do everything, for there is neither SESSION_API_KEYS nor "
            "SESSION_JWT_ISSUER; set one of them, or SESSION_ALLOW_ANONYMOUS=true where that is meant"
        )


def _key_ring(settings: Settings) -> KeyRing | None:
    if settings.session_api_keys is not None:
        return ApiKeys(read_entries(settings.session_api_keys.get_secret_value()))
    path = settings.session_api_keys_file
    if path is None:
        return None
    try:
        return KeyFile(path)
    except (OSError, ValueError) as error:
        raise CannotStart(f"SESSION_API_KEYS_FILE={path}: {why(error)}") from None


def _tokens(settings: Settings) -> "Tokens | None":
    if settings.session_jwt_issuer is None:
        return None
    from service.access.key_set import KeySet
    from service.access.tokens import Secret, Tokens

    assert settings.session_jwt_audience is not None
    secret = settings.session_jwt_secret
    keys = KeySet(settings.session_jwt_jwks_url or "") if secret is None else Secret(secret.get_secret_value())
    return Tokens(settings.session_jwt_issuer, settings.session_jwt_audience, keys)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
