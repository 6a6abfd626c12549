"""Settings of API keys and tokens."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from service.settings.api_keys import parse_api_keys

_MIN_SECRET_BYTES = 32
_SAFE_URL = re.compile(r"https://.|http://(127\.0\.0\.1|localhost|\[::1\])[:/]")


class AuthSettings(BaseSettings):
    """Authentication is off unless API keys or a token issuer are set."""

    session_api_keys: SecretStr | None = None
    session_api_keys_file: Path | None = None
    session_jwt_issuer: str | None = Field(None, min_length=1)
    session_jwt_audience: str | None = Field(None, min_length=1)
    session_jwt_jwks_url: str | None = None
    session_jwt_secret: SecretStr | None = None
    session_allow_anonymous: bool = False

    @property
    def requires_authentication(self) -> bool:
        sources = (self.session_api_keys, self.session_api_keys_file, self.session_jwt_issuer)
        return any(source is not None for source in sources)

    @field_validator("session_api_keys")
    @classmethod
    def _validate_api_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            parse_api_keys(keys.get_secret_value())
        return keys

    @field_validator("session_jwt_secret")
    @classmethod
    def _validate_jwt_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().encode()) < _MIN_SECRET_BYTES:
            raise ValueError(f"must have at least {_MIN_SECRET_BYTES} bytes, and be random")
        return secret

    @field_validator("session_jwt_jwks_url")
    @classmethod
    def _validate_jwks_url(cls, url: str | None) -> str | None:
        """Without TLS, an attacker on the network could replace the public keys."""
        if url is not None and not _SAFE_URL.match(url):
            raise ValueError("must start with https://, or with http://127.0.0.1 for an issuer on the same machine")
        return url

    @model_validator(mode="after")
    def _validate_key_sources(self) -> Self:
        if self.session_api_keys is not None and self.session_api_keys_file is not None:
            raise ValueError("SESSION_API_KEYS must not be set together with SESSION_API_KEYS_FILE")
        return self

    @model_validator(mode="after")
    def _validate_token_settings(self) -> Self:
        required = {
            "SESSION_JWT_ISSUER": self.session_jwt_issuer,
            "SESSION_JWT_AUDIENCE": self.session_jwt_audience,
            "SESSION_JWT_JWKS_URL or SESSION_JWT_SECRET": self.session_jwt_jwks_url or self.session_jwt_secret,
        }
        missing = [name for name, value in required.items() if value is None]
        if 0 < len(missing) < len(required):
            raise ValueError(f"{missing[0]} must be set, because other SESSION_JWT_ variables are set")
        if self.session_jwt_jwks_url is not None and self.session_jwt_secret is not None:
            raise ValueError("SESSION_JWT_SECRET must not be set together with SESSION_JWT_JWKS_URL")
        return self
