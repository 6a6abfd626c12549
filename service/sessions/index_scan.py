"""Reading an index in its own order, from any place in it: ids by score, and by their bytes where scores are equal."""

from collections.abc import Sequence
from typing import NamedTuple

from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import UnexpectedReply
from service.sessions import scripts

Order = tuple[float, str]


class Entry(NamedTuple):
    """An id and its score as Redis writes it; and the place in the index that it has, or had while it was there."""

    score: str
    id: str

    @property
    def order(self) -> Order:
        return float(self.score), self.id


BEGINNING = Entry("-inf", "")


class Stretch(NamedTuple):
    """Up to `number` entries of the index with the key `ids`, the first of them after a place."""

    ids: str
    after: Entry
    number: int


async def entries_of(redis: RedisClient, stretches: Sequence[Stretch]) -> list[list[Entry]]:
    """The entries of each stretch."""
    commands = [
        scripts.LIST.command(stretch, score=stretch.after.score, id=stretch.after.id, limit=stretch.number)
        for stretch in stretches
    ]
    return [_entries(answer) for answer in await redis.query(*commands)] if commands else []


async def last_of(redis: RedisClient, index: str) -> Entry | None:
    """The last entry of an index; None where there are none."""
    while ids := (await redis.query(("ZRANGE", index, -1, -1)))[0]:
        (score,) = await redis.query(("ZSCORE", index, ids[0]))
        if score is not None:  # else it has left meanwhile, and another is the last
            return Entry(f"{float(score):.17g}", ids[0].decode())
    return None


def _entries(answer: Reply) -> list[Entry]:
    match answer:
        case [b"entries", [*flat]]:
            texts = iter([text.decode() for text in flat])
            return [Entry(score, session_id) for session_id, score in zip(texts, texts, strict=True)]
        case _:
            raise UnexpectedReply(repr(answer))
