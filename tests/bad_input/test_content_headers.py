"""Content types, body sizes and content encodings."""

import gzip
import zlib

import pytest

from service.api.request_bodies import MAX_GZIP_MEMBERS
from service.settings import MAX_BODY_BYTES
from tests.bad_input.helpers import CREATION, UNKNOWN_ID, patch_metadata, post_body
from tests.conftest import HttpClient
from tests.test_walkthrough import SESSIONS, open_session

pytestmark = pytest.mark.asyncio(loop_scope="package")


# Content-Type


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON;charset=UTF-8"]
)
async def test_json_may_have_a_charset(service: HttpClient, content_type: str) -> None:
    response = await post_body(service, CREATION, **{"Content-Type": content_type})

    assert response.status == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/merge-patch+json",
        "application/jsonx",
        "nonsense",
        ";",
        "json",
    ],
)
async def test_a_creation_must_be_sent_as_json(service: HttpClient, content_type: str) -> None:
    response = await post_body(service, CREATION, **{"Content-Type": content_type})

    error = await response.json()
    assert response.status == 415
    assert error["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert error["details"] == {"contentType": content_type}


async def test_a_content_type_is_required(service: HttpClient) -> None:
    response = await service.post(SESSIONS, data=CREATION, skip_auto_headers=["Content-Type"])

    assert response.status == 415


async def test_a_timeout_update_must_be_sent_as_json(service: HttpClient) -> None:
    path = f"{SESSIONS}/{UNKNOWN_ID}/timeout"

    response = await service.patch(path, data=b"{}", headers={"Content-Type": "text/plain"})

    assert response.status == 415


@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json; charset=utf-8"])
async def test_a_metadata_patch_may_be_sent_as_json_or_merge_patch(service: HttpClient, content_type: str) -> None:
    response = await patch_metadata(service, b'{"channel":null,"topic":{"a":[1]}}', content_type)

    assert response.status == 200
    assert (await response.json())["metadata"] == {"topic": {"a": [1]}}


@pytest.mark.parametrize("content_type", ["text/plain", "application/json-patch+json"])
async def test_the_error_of_a_metadata_patch_names_both_content_types(service: HttpClient, content_type: str) -> None:
    response = await patch_metadata(service, b"{}", content_type)

    error = await response.json()
    assert response.status == 415
    assert error["error"]["details"] == (
        f"Content-Type must be application/json or application/merge-patch+json (got {content_type})."
    )


async def test_routes_without_a_body_ignore_a_body(service: HttpClient) -> None:
    session_id = await open_session(service)

    response = await service.post(f"{SESSIONS}/{session_id}/heartbeat", data=b"\x00nonsense")

    assert response.status == 200


# Size


async def test_a_body_may_have_sixty_four_kibibytes(service: HttpClient) -> None:
    response = await post_body(service, CREATION.ljust(MAX_BODY_BYTES))

    assert response.status == 201


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 10 * MAX_BODY_BYTES])
async def test_a_larger_body_is_too_large(service: HttpClient, size: int) -> None:
    response = await post_body(service, CREATION.ljust(size))

    error = await response.json()
    assert response.status == 413
    assert error["code"] == "PAYLOAD_TOO_LARGE"
    assert error["details"] == {"maxBytes": 65_536}


async def test_the_decompressed_size_is_limited_too(service: HttpClient) -> None:
    response = await post_body(service, gzip.compress(b"0" * 20_000_000), **{"Content-Encoding": "gzip"})

    assert response.status == 413


# Content-Encoding


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(CREATION)),
        ("GZip", gzip.compress(CREATION)),
        ("deflate", zlib.compress(CREATION)),
        ("deflate", zlib.compress(CREATION, wbits=-15)),
        ("x-gzip", gzip.compress(CREATION)),
        ("gzip", gzip.compress(CREATION[:9]) + gzip.compress(b"") + gzip.compress(CREATION[9:])),
        ("gzip, identity,", gzip.compress(CREATION)),
        ("identity", CREATION),
        ("Identity", CREATION),
        ("", CREATION),
    ],
    ids=[
        "gzip",
        "upper case",
        "deflate",
        "raw deflate",
        "old name of gzip",
        "several members",
        "list",
        "identity",
        "identity in upper case",
        "empty",
    ],
)
async def test_a_body_may_be_compressed(service: HttpClient, encoding: str, body: bytes) -> None:
    response = await post_body(service, body, **{"Content-Encoding": encoding})

    assert response.status == 201


@pytest.mark.parametrize(
    "body",
    [
        CREATION,
        b"",
        gzip.compress(CREATION)[:-1],
        gzip.compress(CREATION) + b"x",
        gzip.compress(CREATION) + gzip.compress(b" ")[:-1],
        gzip.compress(CREATION) + gzip.compress(b"") * MAX_GZIP_MEMBERS,
    ],
    ids=["not compressed", "empty", "truncated", "trailing bytes", "truncated second member", "too many members"],
)
async def test_a_compressed_body_must_match_its_encoding(service: HttpClient, body: bytes) -> None:
    response = await post_body(service, body, **{"Content-Encoding": "gzip"})

    assert response.status == 400
    assert (await response.json())["code"] == "BAD_REQUEST"


async def test_the_decompressed_size_of_several_members_is_limited(service: HttpClient) -> None:
    body = gzip.compress(CREATION) + gzip.compress(b" " * (MAX_BODY_BYTES - len(CREATION) + 1))

    response = await post_body(service, body, **{"Content-Encoding": "gzip"})

    assert response.status == 413


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "nonsense"])
async def test_the_error_of_an_unknown_encoding_names_the_known_ones(service: HttpClient, encoding: str) -> None:
    response = await post_body(service, CREATION, **{"Content-Encoding": encoding})

    error = await response.json()
    assert (response.status, error["code"]) == (415, "UNSUPPORTED_ENCODING")
    assert error["details"] == {"contentEncoding": encoding}
    assert response.headers["Accept-Encoding"] == "gzip, deflate"
