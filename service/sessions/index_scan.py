"""Read indexes in their order: by score, and by the bytes of the id for equal scores."""

from collections.abc import Sequence
from typing import NamedTuple

from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import UnexpectedReply
from service.sessions import scripts


class Entry(NamedTuple):
    """An id and its score as Redis formats it. Also a position in the index, even after the entry is removed."""

    score: str
    id: str

    @property
    def order(self) -> tuple[float, str]:
        return float(self.score), self.id

    @property
    def is_readable(self) -> bool:
        """Whether the id is text. Others contain surrogates in place of bytes that are no UTF-8."""
        return self.id.isprintable()

    @property
    def member(self) -> bytes:
        """The id as Redis stores it."""
        return encode_id(self.id)


def decode_id(member: bytes) -> str:
    """Decode a member of an index. Bytes that are no UTF-8 become surrogates, which `encode_id` restores."""
    return member.decode(errors="surrogateescape")


def encode_id(session_id: str) -> bytes:
    return session_id.encode(errors="surrogateescape")


BEGINNING = Entry("-inf", "")


class IndexRange(NamedTuple):
    """Up to `limit` entries of the index with the key `ids`, behind a position."""

    ids: str
    after: Entry
    limit: int


async def read_ranges(client: RedisClient, ranges: Sequence[IndexRange]) -> list[list[Entry]]:
    """Read ranges of several indexes. An index of a wrong type is empty."""
    commands = [
        scripts.LIST.command(range_, score=range_.after.score, id=range_.after.member, limit=range_.limit)
        for range_ in ranges
    ]
    return [_entries(reply) for reply in await client.query(*commands)] if commands else []


async def read_last(client: RedisClient, index: str) -> Entry | None:
    """Read the last entry of an index, if there is one."""
    while ids := (await client.query(("ZRANGE", index, -1, -1)))[0]:
        (score,) = await client.query(("ZSCORE", index, ids[0]))
        if score is not None:  # otherwise the entry has just been removed
            return Entry(f"{float(score):.17g}", decode_id(ids[0]))
    return None


def _entries(reply: Reply) -> list[Entry]:
    match reply:
        case [b"entries", [*flat]]:
            texts = iter([decode_id(text) for text in flat])
            return [Entry(score, session_id) for session_id, score in zip(texts, texts, strict=True)]
        case _:
            raise UnexpectedReply(repr(reply))
