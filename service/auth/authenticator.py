"""Authentication by API key or token, as configured by the settings."""

from ipaddress import ip_address
from typing import Protocol

from service.auth.api_keys import ApiKeyFile, ApiKeys, describe_file_error
from service.auth.scopes import Caller
from service.errors import StartupError, Unauthorized
from service.settings import Settings


class KeyRing(Protocol):
    def find_caller(self, key: str) -> Caller | None: ...

    def start(self) -> None: ...

    def close(self) -> None: ...


class TokenVerifier(Protocol):
    def find_caller(self, token: str) -> Caller | None: ...

    async def verify(self, token: str) -> Caller: ...

    async def aclose(self) -> None: ...


class Authenticator:
    """Finds the caller that presents an API key or a token."""

    def __init__(self, keys: KeyRing | None, tokens: TokenVerifier | None) -> None:
        self._keys = keys
        self._tokens = tokens

    def find_caller(self, credential: str) -> Caller | None:
        """Return the caller with this API key or recently verified token. Does not wait."""
        caller = None if self._keys is None else self._keys.find_caller(credential)
        return self._tokens.find_caller(credential) if caller is None and self._tokens is not None else caller

    async def verify(self, credential: str) -> Caller:
        """Return the caller with this token. Raises Unauthorized and IssuerUnavailable."""
        if self._tokens is None:
            raise Unauthorized.unknown()
        return await self._tokens.verify(credential)

    def start(self) -> None:
        """Watch the key file for changes."""
        if self._keys is not None:
            self._keys.start()

    async def aclose(self) -> None:
        if self._keys is not None:
            self._keys.close()
        if self._tokens is not None:
            await self._tokens.aclose()


def build_authenticator(settings: Settings) -> Authenticator | None:
    """Return None if authentication is off. Raises StartupError if the key file cannot be loaded."""
    if not settings.requires_authentication:
        return None
    return Authenticator(_key_ring(settings), _token_verifier(settings))


def require_authentication(settings: Settings) -> None:
    """Raises StartupError if other hosts could use the service without authentication."""
    if not (settings.requires_authentication or settings.session_allow_anonymous or _is_loopback(settings.host)):
        raise StartupError(
            f"HOST={settings.host}: requires authentication, because other hosts can connect; unset HOST to listen on "
            "127.0.0.1, or set SESSION_API_KEYS or SESSION_JWT_ISSUER, or set SESSION_ALLOW_ANONYMOUS=true to allow "
            "every request"
        )


def _key_ring(settings: Settings) -> KeyRing | None:
    if settings.session_api_keys is not None:
        return ApiKeys(settings.session_api_keys.get_secret_value())
    path = settings.session_api_keys_file
    if path is None:
        return None
    try:
        return ApiKeyFile(path)
    except (OSError, ValueError) as error:
        raise StartupError(f"SESSION_API_KEYS_FILE={path}: {describe_file_error(error)}") from None


def _token_verifier(settings: Settings) -> TokenVerifier | None:
    if settings.session_jwt_issuer is None:
        return None
    from service.auth.jwks import JwksKeys  # loads cryptography: 9 MiB that API keys do not need
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
