"""A service that asks who calls: by keys of each scope, and by tokens under a secret that the issuer shares with it."""

import time
from typing import Any

import jwt
import pytest

from service.auth.api_keys import new_key
from service.settings import Settings
from service.settings.api_keys import SCOPES, Scope

ISSUER = "https://issuer.example"
AUDIENCE = "sessions"
SECRET = "a-secret-for-tests-of-at-least-32-bytes"

KEYS = {scope: new_key(scope, [scope]) for scope in SCOPES}
ENTRIES = " ".join(key.entry for key in KEYS.values())


def having(scope: Scope) -> dict[str, str]:
    """The headers of who has a key of this scope."""
    return {"X-API-KEY": KEYS[scope].key}


def bearing(subject: str, **claims: Any) -> dict[str, str]:
    """The headers of who bears a token."""
    return {"Authorization": f"Bearer {token_of(subject, **claims)}"}


def token_of(subject: str, **claims: Any) -> str:
    return jwt.encode(claims_of(subject, **claims), SECRET, "HS256")


def claims_of(subject: str, **claims: Any) -> dict[str, Any]:
    """Those of a good token, but for what is given; None leaves a claim out."""
    usual = {"sub": subject, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 3600}
    return {name: value for name, value in (usual | claims).items() if value is not None}


@pytest.fixture
def settings() -> Settings:
    return Settings(
        session_api_keys=ENTRIES,
        session_jwt_issuer=ISSUER,
        session_jwt_audience=AUDIENCE,
        session_jwt_secret=SECRET,
    )
