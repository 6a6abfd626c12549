"""Bodies that were compressed: opened once they have arrived, and no further than a body may be long.

aiohttp would open them while they arrive, whoever sends them, and however long they become: a few of 200 KB that become
200 MB hold up every other request for seconds.
"""

import zlib

from service.errors import MalformedRequest, PayloadTooLarge, UnsupportedEncoding
from service.settings import MAX_BODY_BYTES

_AS_IT_IS = ("", "identity")
_GZIP, _ZLIB, _BARE = 31, 15, -15
"""zlib's words for what stands around the compressed data."""


def opened(body: bytes, encoding: str) -> bytes:
    """Raises UnsupportedEncoding, MalformedRequest where it is not what that says, and PayloadTooLarge."""
    if encoding in _AS_IT_IS:
        return body
    opener = zlib.decompressobj(_around(body, encoding))
    try:
        whole = opener.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise MalformedRequest(f"The body is not {encoding}.") from None
    if len(whole) > MAX_BODY_BYTES:
        raise PayloadTooLarge(MAX_BODY_BYTES)
    if not opener.eof or opener.unused_data:
        raise MalformedRequest(f"The body is cut short, or more than what is {encoding}.")
    return whole


def _around(body: bytes, encoding: str) -> int:
    match encoding.lower():
        case "gzip":
            return _GZIP
        case "deflate":  # some leave out what should be around it
            return _ZLIB if body[:1] and body[0] & 0xF == 8 else _BARE
        case _:
            raise UnsupportedEncoding(encoding)
