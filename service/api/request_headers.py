"""Parsing of request headers: credentials, Idempotency-Key and If-Match."""

import re

from aiohttp import web

from service.api.app_keys import CALLER
from service.errors import InvalidRequest, Unauthorized
from service.sessions.idempotency import IdempotencyKey
from service.sessions.session import Revisions

API_KEY_HEADER = "X-API-KEY"
IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
IF_MATCH_HEADER = "If-Match"

_MAX_KEY_LENGTH = 255
_QUOTED_KEY = re.compile(r'"((?:[!#-\[\]-~]|\\["\\])+)"')
_BARE_KEY = re.compile(r"[!#-+\--~]+")  # without a comma, which would separate two keys
_ESCAPED = re.compile(r"\\(.)")

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\U0010ffff]*"'
_TAG_LIST = re.compile(rf"(?:[ \t]*,)*[ \t]*{_TAG}(?:[ \t]*,(?:[ \t]*{_TAG})?)*[ \t]*")
_EACH_TAG = re.compile(r'(W/)?"([^"]*)"')
_REVISION = re.compile(r"[1-9][0-9]{0,15}")


def credential_of(request: web.Request) -> str:
    """Return the API key or token of a request. Raises Unauthorized without one."""
    headers = request.headers
    key = headers.get(API_KEY_HEADER)
    if key is not None:
        return key
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized.missing(f"Send an API key in {API_KEY_HEADER}, or a key or token as Authorization: Bearer.")
    return token.strip()


def idempotency_key_of(request: web.Request) -> IdempotencyKey | None:
    """Return the Idempotency-Key in the scope of its caller, if there is one. Raises InvalidRequest."""
    lines = request.headers.getall(IDEMPOTENCY_KEY_HEADER, None)
    if lines is None:
        return None
    key = _parse_key(lines[0]) if len(lines) == 1 else None
    if key is None or len(key) > _MAX_KEY_LENGTH:
        raise InvalidRequest(
            {IDEMPOTENCY_KEY_HEADER: f"must be a single key of 1 to {_MAX_KEY_LENGTH} visible ASCII characters"}
        )
    caller = request.get(CALLER)
    return IdempotencyKey("" if caller is None else f"{caller.method}:{caller.name}", key)


def expected_revisions_of(request: web.Request) -> Revisions | None:
    """Return the revisions of the strong tags in If-Match. None: any revision. Raises InvalidRequest."""
    lines = request.headers.getall(IF_MATCH_HEADER, None)
    if lines is None:
        return None
    tags = ", ".join(lines)
    if tags.strip() == "*":  # a live session always has a revision
        return None
    if not _TAG_LIST.fullmatch(tags):
        raise InvalidRequest({IF_MATCH_HEADER: 'must be * or a list of quoted tags from ETag, such as "7"'})
    return frozenset(tag.encode() for weak, tag in _EACH_TAG.findall(tags) if not weak and _REVISION.fullmatch(tag))


def _parse_key(line: str) -> str | None:
    """Return the same key with and without quotes."""
    quoted = _QUOTED_KEY.fullmatch(line)
    if quoted is not None:
        return _ESCAPED.sub(r"\1", quoted[1])
    return line if _BARE_KEY.fullmatch(line) else None
