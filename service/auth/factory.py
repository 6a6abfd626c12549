"""The guard that the settings ask for, and where the service may listen without one."""

from ipaddress import ip_address
from typing import TYPE_CHECKING

from service.auth.api_key_file import ApiKeyFile, why
from service.auth.api_keys import ApiKeys, read_entries
from service.auth.authenticator import Admit, Authenticator, KeyRing
from service.errors import StartupError
from service.observability.audit import Audit
from service.settings import Settings

if TYPE_CHECKING:
    from service.auth.tokens import Tokens


def authenticator_for(
    settings: Settings, admit: Admit | None = None, audit: Audit | None = None
) -> Authenticator | None:
    """None where there are neither keys nor tokens. Raises StartupError."""
    if not settings.requires_authentication:
        return None
    return Authenticator(_key_ring(settings), _tokens(settings), admit, audit)


def require_authentication(settings: Settings) -> None:
    """Raises StartupError where others than this machine could reach a service that asks nobody who they are."""
    if not (settings.requires_authentication or settings.session_allow_anonymous or _is_loopback(settings.host)):
        raise StartupError(
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
        return ApiKeyFile(path)
    except (OSError, ValueError) as error:
        raise StartupError(f"SESSION_API_KEYS_FILE={path}: {why(error)}") from None


def _tokens(settings: Settings) -> "Tokens | None":
    if settings.session_jwt_issuer is None:
        return None
    from service.auth.jwks import JwksKeys
    from service.auth.tokens import HmacKey, Tokens

    assert settings.session_jwt_audience is not None
    secret = settings.session_jwt_secret
    keys = JwksKeys(settings.session_jwt_jwks_url or "") if secret is None else HmacKey(secret.get_secret_value())
    return Tokens(settings.session_jwt_issuer, settings.session_jwt_audience, keys)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
