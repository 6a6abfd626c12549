"""The keys of an issuer: fetched on demand, cached, refreshed, and kept while the issuer is unavailable."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pytest_aiohttp.plugin import AiohttpServer

from service.auth import jwks
from service.auth.jwks import JwksKeys
from service.auth.tokens import Tokens
from service.errors import IssuerUnavailable, ServiceError, Unauthorized
from tests.auth.conftest import AUDIENCE, ISSUER, valid_claims
from tests.conftest import USER

RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
EC_KEY = ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """Serves a key set and counts the requests."""

    def __init__(self) -> None:
        self.body = json.dumps({"keys": [jwk(0)]})
        self.status = 200
        self.requests = 0
        self.was_requested, self.may_respond = asyncio.Event(), asyncio.Event()
        self.may_respond.set()
        self.app = web.Application()
        self.app.router.add_get("/keys", self._respond)

    def set_keys(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys})

    async def _respond(self, _: web.Request) -> web.Response:
        self.requests += 1
        self.was_requested.set()
        await self.may_respond.wait()
        return web.Response(text=self.body, status=self.status, headers={"Location": "/elsewhere"})


def jwk(number: int, **members: str) -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(RSA_KEYS[number].public_key(), as_dict=True), "kid": str(number), **members}


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def server(issuer: Issuer, aiohttp_server: AiohttpServer) -> TestServer:
    return await aiohttp_server(issuer.app)


@pytest.fixture
async def keys(server: TestServer) -> AsyncIterator[JwksKeys]:
    keys = JwksKeys(str(server.make_url("/keys")))
    yield keys
    await keys.aclose()


@pytest.fixture
def immediate_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "RETRY_SECONDS", 0)


async def error_of(keys: JwksKeys, key_id: str) -> ServiceError:
    with pytest.raises((IssuerUnavailable, Unauthorized)) as error:
        await keys.key(key_id, "RS256")
    return error.value


async def key_id_before_fetch(keys: JwksKeys) -> str | None:
    """Return the id of the key `0` found while the keys are fetched again. Waits for the fetch."""
    key = await keys.key("0", "RS256")
    await finish_fetch(keys)
    return key.key_id


async def finish_fetch(keys: JwksKeys) -> None:
    assert keys._fetch_task is not None
    await keys._fetch_task


async def test_a_key_is_found_by_its_id_and_cached(keys: JwksKeys, issuer: Issuer) -> None:
    found = [await keys.key("0", "RS256") for _ in range(3)]

    assert [key.key_id for key in found] == ["0"] * 3
    assert issuer.requests == 1


async def test_the_id_of_a_single_key_may_be_missing(keys: JwksKeys) -> None:
    assert (await keys.key(None, "RS256")).key_id == "0"


async def test_the_id_of_one_of_several_keys_is_required(keys: JwksKeys, issuer: Issuer) -> None:
    issuer.set_keys(jwk(0), jwk(1))

    with pytest.raises(Unauthorized):
        await keys.key(None, "RS256")


@pytest.mark.usefixtures("immediate_retries")
async def test_a_new_key_is_fetched(keys: JwksKeys, issuer: Issuer) -> None:
    await keys.key("0", "RS256")
    issuer.set_keys(jwk(0), jwk(1))

    assert (await keys.key("1", "RS256")).key_id == "1"


async def test_unknown_ids_do_not_cause_more_fetches(keys: JwksKeys, issuer: Issuer) -> None:
    errors = [await error_of(keys, str(number)) for number in range(1, 20)]

    assert {type(error) for error in errors} == {Unauthorized}
    assert issuer.requests == 1


@pytest.mark.usefixtures("immediate_retries")
async def test_old_keys_are_refreshed_in_the_background(
    keys: JwksKeys, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys.key("0", "RS256")
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0)
    issuer.set_keys(jwk(1))

    old_key = await keys.key("0", "RS256")
    await finish_fetch(keys)

    assert old_key.key_id == "0"
    assert type(await error_of(keys, "0")) is Unauthorized


@pytest.mark.usefixtures("immediate_retries")
async def test_keys_stay_valid_for_a_time_while_the_issuer_is_unavailable(
    keys: JwksKeys, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await keys.key("0", "RS256")
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0)
    issuer.status = 500

    assert [await key_id_before_fetch(keys) for _ in range(3)] == ["0"] * 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]

    monkeypatch.setattr(jwks, "STALE_SECONDS", 0)
    assert type(await error_of(keys, "0")) is IssuerUnavailable


@pytest.mark.usefixtures("immediate_retries")
async def test_an_issuer_that_recovers_is_used_and_logged(
    keys: JwksKeys, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    issuer.status = 503
    assert type(await error_of(keys, "0")) is IssuerUnavailable

    issuer.status = 200

    assert (await keys.key("0", "RS256")).key_id == "0"
    assert caplog.messages[-1] == "SESSION_JWT_JWKS_URL: fetched the issuer's keys again"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "{}"),
        (302, json.dumps({"keys": [jwk(0)]})),
        (200, "nonsense"),
        (200, "[]"),
        (200, "{}"),
        (200, '{"keys": 1}'),
        (200, '{"keys": [{"kty": "nonsense"}]}'),
        (200, json.dumps({"keys": [jwk(0)]}) + " " * 300_000),
    ],
    ids=["404", "redirect", "no JSON", "no object", "no keys", "no list", "unusable key", "too large"],
)
async def test_an_invalid_response_makes_the_issuer_unavailable(
    keys: JwksKeys, issuer: Issuer, status: int, body: str
) -> None:
    issuer.status, issuer.body = status, body

    error = await error_of(keys, "0")

    assert (type(error), error.headers) == (IssuerUnavailable, {"Retry-After": "10"})


async def test_an_issuer_that_does_not_listen_is_unavailable(keys: JwksKeys, server: TestServer) -> None:
    await server.close()

    assert type(await error_of(keys, "0")) is IssuerUnavailable


async def test_closing_cancels_a_running_fetch(keys: JwksKeys, issuer: Issuer) -> None:
    issuer.may_respond.clear()
    lookup = asyncio.create_task(keys.key("0", "RS256"))
    await issuer.was_requested.wait()

    await keys.aclose()

    with pytest.raises(asyncio.CancelledError):
        await lookup
    issuer.may_respond.set()


async def test_only_public_signature_keys_are_used(keys: JwksKeys, issuer: Issuer) -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "secret"}
    issuer.set_keys(jwk(0, use="enc"), secret, jwk(1))

    assert (await keys.key("1", "RS256")).key_id == "1"
    assert [type(await error_of(keys, key_id)) for key_id in ("0", "secret")] == [Unauthorized] * 2


async def test_elliptic_curve_keys_are_supported(keys: JwksKeys, issuer: Issuer) -> None:
    issuer.set_keys({**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "curve"})

    assert (await keys.key("curve", "ES256")).algorithm_name == "ES256"


@pytest.mark.parametrize("algorithm", jwks.RSA_ALGORITHMS)
async def test_an_rsa_key_without_an_algorithm_permits_all_rsa_algorithms(keys: JwksKeys, algorithm: str) -> None:
    token = jwt.encode(valid_claims(USER), RSA_KEYS[0], algorithm, {"kid": "0"})

    caller = await Tokens(ISSUER, AUDIENCE, keys).verify(token)

    assert caller.user_id == USER


@pytest.mark.parametrize("algorithm", jwks.RSA_ALGORITHMS[1:])
async def test_a_key_permits_only_its_own_algorithm(keys: JwksKeys, issuer: Issuer, algorithm: str) -> None:
    issuer.set_keys(jwk(0, alg="RS256"))
    token = jwt.encode(valid_claims(USER), RSA_KEYS[0], algorithm, {"kid": "0"})

    with pytest.raises(Unauthorized):
        await Tokens(ISSUER, AUDIENCE, keys).verify(token)


async def test_keys_are_fetched_through_the_proxy_of_the_environment(
    issuer: Issuer, aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await aiohttp_server(issuer.app)
    monkeypatch.setenv("HTTP_PROXY", str(proxy.make_url("")))
    keys = JwksKeys("http://issuer.invalid/keys")

    assert (await keys.key("0", "RS256")).key_id == "0"


def test_all_algorithms_are_asymmetric() -> None:
    assert {name[:2] for name in jwks.ALGORITHMS} == {"RS", "PS", "ES", "Ed"}
