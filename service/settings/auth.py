"""Who is let in: keys, tokens, or everyone."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from service.settings.api_keys import parse_api_keys

_LEAST_SECRET_BYTES = 32
_SAFE_URL = re.compile(r"https://.|http://(127\.0\.0\.1|localhost|\[::1\])[:/]")


class AccessSettings(BaseSettings):
    """The keys and tokens that callers may have."""

    session_api_keys: SecretStr | None = None
    session_api_keys_file: Path | None = None
    session_jwt_issuer: str | None = Field(None, min_length=1)
    session_jwt_audience: str | None = Field(None, min_length=1)
    session_jwt_jwks_url: str | None = None
    session_jwt_secret: SecretStr | None = None
    session_allow_anonymous: bool = False

    @property
    def requires_authentication(self) -> bool:
        """Whether callers are asked who they are."""
        asking = (self.session_api_keys, self.session_api_keys_file, self.session_jwt_issuer)
        return any(given is not None for given in asking)

    @field_validator("session_api_keys")
    @classmethod
    def _keys_are_entries(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            parse_api_keys(keys.get_secret_value())
        return keys

    @field_validator("session_jwt_secret")
    @classmethod
    def _secret_is_long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().encode()) < _LEAST_SECRET_BYTES:
            raise ValueError(f"must be {_LEAST_SECRET_BYTES} bytes or more, and random")
        return secret

    @field_validator("session_jwt_jwks_url")
    @classmethod
    def _nobody_can_change_keys_on_their_way(cls, url: str | None) -> str | None:
        if url is not None and not _SAFE_URL.match(url):
            raise ValueError("must begin with https:// (or http://127.0.0.1, for an issuer beside the service)")
        return url

    @model_validator(mode="after")
    def _keys_have_one_place(self) -> Self:
        if self.session_api_keys is not None and self.session_api_keys_file is not None:
            raise ValueError("SESSION_API_KEYS: must not be set beside SESSION_API_KEYS_FILE")
        return self

    @model_validator(mode="after")
    def _tokens_can_be_judged(self) -> Self:
        """Who signs them, for whom, and with what."""
        together = {
            "SESSION_JWT_ISSUER": self.session_jwt_issuer,
            "SESSION_JWT_AUDIENCE": self.session_jwt_audience,
            "SESSION_JWT_JWKS_URL or SESSION_JWT_SECRET": self.session_jwt_jwks_url or self.session_jwt_secret,
        }
        missing = [name for name, value in together.items() if value is None]
        if 0 < len(missing) < len(together):
            raise ValueError(f"{missing[0]}: is required where there are tokens (SESSION_JWT_...)")
        if self.session_jwt_jwks_url is not None and self.session_jwt_secret is not None:
            raise ValueError("SESSION_JWT_SECRET: must not be set beside SESSION_JWT_JWKS_URL")
        return self
