"""What a client calls a creation by, so that it may be repeated: `Idempotency-Key`, as its draft at the IETF has it."""

import re

from aiohttp import web

from service.auth.scopes import CALLER
from service.errors import InvalidRequest
from service.sessions.idempotency import IdempotencyKey

IDEMPOTENCY_KEY = "Idempotency-Key"

_LONGEST = 255
_IN_QUOTES = re.compile(r'"((?:[!#-\[\]-~]|\\["\\])+)"')
_BARE = re.compile(r"[!#-+\--~]+")  # a comma would stand between two of them
_ESCAPED = re.compile(r"\\(.)")


def creation_key_of(request: web.Request) -> IdempotencyKey | None:
    """None where there is none. Raises InvalidRequest."""
    lines = request.headers.getall(IDEMPOTENCY_KEY, None)
    if lines is None:
        return None
    key = _read(lines[0]) if len(lines) == 1 else None
    if key is None or len(key) > _LONGEST:
        raise InvalidRequest({IDEMPOTENCY_KEY: f"must be one key, of 1 to {_LONGEST} visible ASCII characters"})
    caller = request.get(CALLER)
    return IdempotencyKey("" if caller is None else f"{caller.by}:{caller.name}", key)


def _read(line: str) -> str | None:
    """The key is the same in quotes and without."""
    in_quotes = _IN_QUOTES.fullmatch(line)
    if in_quotes is not None:
        return _ESCAPED.sub(r"\1", in_quotes[1])
    return line if _BARE.fullmatch(line) else None
