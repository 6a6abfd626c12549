"""Services with API keys of each scope, and with tokens that a shared secret signs."""

import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient

from service.auth.api_keys import new_key
from service.redis_client.factory import redis_py_client
from service.settings import Settings
from service.settings.api_keys import AGENT as AGENT_SCOPE
from service.settings.api_keys import SCOPES, Scope
from tests.conftest import HttpClient, ServiceServer
from tests.redis_server import RedisServer

ISSUER = "https://issuer.example"
AUDIENCE = "sessions"
SECRET = "a-secret-for-tests-of-at-least-32-bytes"

KEYS = {scope: new_key(scope, [scope]) for scope in (*SCOPES, AGENT_SCOPE)}
ENTRIES = " ".join(key.entry for key in KEYS.values())


def key_headers(scope: Scope) -> dict[str, str]:
    return {"X-API-KEY": KEYS[scope].key}


def token_headers(subject: str, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {new_token(subject, **claims)}"}


def new_token(subject: str, **claims: Any) -> str:
    return jwt.encode(valid_claims(subject, **claims), SECRET, "HS256")


def valid_claims(subject: str, **claims: Any) -> dict[str, Any]:
    """Return the claims of a valid token. The given claims replace them; None removes a claim."""
    valid = {"sub": subject, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 3600}
    return {name: value for name, value in (valid | claims).items() if value is not None}


def authenticated_settings() -> Settings:
    return Settings(
        session_api_keys=ENTRIES,
        session_jwt_issuer=ISSUER,
        session_jwt_audience=AUDIENCE,
        session_jwt_secret=SECRET,
    )


@pytest.fixture
def settings() -> Settings:
    return authenticated_settings()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def service(redis_server: RedisServer) -> AsyncIterator[HttpClient]:
    """A client of a shared service with authentication. Its Redis may contain sessions of earlier tests."""
    redis_server.command("FLUSHALL")  # an earlier test may have left an unsupported schema version
    redis = redis_py_client(redis_server.admin_url, 10)
    async with TestClient(ServiceServer(authenticated_settings(), redis)) as client:
        yield client
    await redis.aclose()
