"""The keys of an issuer: fetched when they are needed, kept, fetched anew by and by, and missed politely."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pytest_aiohttp.plugin import AiohttpServer

from service.auth import jwks
from service.auth.jwks import JwksKeys
from service.errors import IssuerUnavailable, ServiceError, Unauthorized

RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
EC_KEY = ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """Serves a set of keys, and counts how often it is asked."""

    def __init__(self) -> None:
        self.body = json.dumps({"keys": [jwk_of(0)]})
        self.status = 200
        self.asked = 0
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.app = web.Application()
        self.app.router.add_get("/keys", self._answer)

    def serves(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys})

    async def _answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        self.is_asked.set()
        await self.may_answer.wait()
        return web.Response(text=self.body, status=self.status, headers={"Location": "/elsewhere"})


def jwk_of(number: int, **members: str) -> dict[str, Any]:
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
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between fetches."""
    monkeypatch.setattr(jwks, "RETRY_SECONDS", 0)


async def test_a_key_is_found_by_its_id_and_kept(keys: JwksKeys, issuer: Issuer) -> None:
    found = [await keys.key("0") for _ in range(3)]

    assert [key.key_id for key in found] == ["0"] * 3
    assert issuer.asked == 1


async def test_where_there_is_but_one_key_it_need_not_be_named(keys: JwksKeys) -> None:
    assert (await keys.key(None)).key_id == "0"


async def test_where_there_are_several_a_key_must_be_named(keys: JwksKeys, issuer: Issuer) -> None:
    issuer.serves(jwk_of(0), jwk_of(1))

    with pytest.raises(Unauthorized):
        await keys.key(None)


@pytest.mark.usefixtures("hurried")
async def test_a_new_key_is_found(keys: JwksKeys, issuer: Issuer) -> None:
    await keys.key("0")
    issuer.serves(jwk_of(0), jwk_of(1))

    assert (await keys.key("1")).key_id == "1"


async def test_made_up_ids_do_not_have_the_issuer_asked_again_and_again(keys: JwksKeys, issuer: Issuer) -> None:
    refused = [await error_for_reply(keys, str(number)) for number in range(1, 20)]

    assert {type(refusal) for refusal in refused} == {Unauthorized}
    assert issuer.asked == 1


@pytest.mark.usefixtures("hurried")
async def test_old_keys_are_fetched_anew_beside_the_request(
    keys: JwksKeys, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys.key("0")
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0)
    issuer.serves(jwk_of(1))

    first = await keys.key("0")
    await fetched(keys)

    assert first.key_id == "0"
    assert type(await error_for_reply(keys, "0")) is Unauthorized


@pytest.mark.usefixtures("hurried")
async def test_while_the_issuer_is_away_its_keys_stay_good_for_a_time(
    keys: JwksKeys, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await keys.key("0")
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0)
    issuer.status = 500

    for _ in range(3):
        assert (await keys.key("0")).key_id == "0"
        await fetched(keys)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]

    monkeypatch.setattr(jwks, "STALE_SECONDS", 0)
    assert type(await error_for_reply(keys, "0")) is IssuerUnavailable


@pytest.mark.usefixtures("hurried")
async def test_an_issuer_that_comes_back_is_heard(
    keys: JwksKeys, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    issuer.status = 503
    assert type(await error_for_reply(keys, "0")) is IssuerUnavailable

    issuer.status = 200

    assert (await keys.key("0")).key_id == "0"
    assert caplog.messages[-1] == "SESSION_JWT_JWKS_URL: fetched the issuer's keys again"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "{}"),
        (302, json.dumps({"keys": [jwk_of(0)]})),
        (200, "nonsense"),
        (200, "[]"),
        (200, "{}"),
        (200, '{"keys": 1}'),
        (200, '{"keys": [{"kty": "nonsense"}]}'),
        (200, json.dumps({"keys": [jwk_of(0)]}) + " " * 300_000),
    ],
    ids=["missing", "elsewhere", "no JSON", "no object", "no keys", "no list", "unusable", "too long"],
)
async def test_what_is_no_set_of_keys_is_a_refusal_to_come_back_from(
    keys: JwksKeys, issuer: Issuer, status: int, body: str
) -> None:
    issuer.status, issuer.body = status, body

    refusal = await error_for_reply(keys, "0")

    assert (type(refusal), refusal.headers) == (IssuerUnavailable, {"Retry-After": "10"})


async def test_an_issuer_that_is_not_there_is_a_refusal_too(keys: JwksKeys, server: TestServer) -> None:
    await server.close()

    assert type(await error_for_reply(keys, "0")) is IssuerUnavailable


async def test_a_fetch_that_goes_on_is_given_up_at_the_end(keys: JwksKeys, issuer: Issuer) -> None:
    issuer.may_answer.clear()
    asking = asyncio.create_task(keys.key("0"))
    await issuer.is_asked.wait()

    await keys.aclose()

    with pytest.raises(asyncio.CancelledError):
        await asking
    issuer.may_answer.set()


async def test_keys_for_other_purposes_are_none(keys: JwksKeys, issuer: Issuer) -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "secret"}
    issuer.serves(jwk_of(0, use="enc"), secret, jwk_of(1))

    assert (await keys.key("1")).key_id == "1"
    assert [type(await error_for_reply(keys, key_id)) for key_id in ("0", "secret")] == [Unauthorized] * 2


async def test_keys_of_elliptic_curves_are_known(keys: JwksKeys, issuer: Issuer) -> None:
    issuer.serves({**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "curve"})

    assert (await keys.key("curve")).algorithm_name == "ES256"


async def error_for_reply(keys: JwksKeys, key_id: str) -> ServiceError:
    with pytest.raises((IssuerUnavailable, Unauthorized)) as refusal:
        await keys.key(key_id)
    return refusal.value


async def fetched(keys: JwksKeys) -> None:
    """Whatever fetch is under way, it is over after this."""
    assert keys._fetch_task is not None
    await keys._fetch_task


def test_no_algorithm_is_one_that_a_public_key_could_sign_with() -> None:
    assert {name[:2] for name in jwks.ALGORITHMS} == {"RS", "PS", "ES", "Ed"}
