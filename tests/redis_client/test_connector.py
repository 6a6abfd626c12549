"""How a connection begins: greeted and let in, or not, without a word of what it was greeted with."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from service.redis_client.connector import Connector, HandshakeError
from service.redis_client.factory import connection_factory, redis_py_client
from service.sessions.scripts import SCRIPTS
from tests.redis_server import RedisServer

SECRET = "topsecret99"


class WithoutHello(RedisServer):
    """A server where that command is disabled."""

    def __init__(self, folder: Path) -> None:
        configuration = folder / "own.conf"
        configuration.write_text('rename-command HELLO ""\n')
        super().__init__(folder, settings={"include": str(configuration)})

    @property
    def url(self) -> str:
        return super().url + "?protocol=2"  # or redis-py says HELLO too


@pytest.fixture
def own_redis(data_dir: Path) -> Iterator[RedisServer]:
    server = WithoutHello(data_dir)
    server.start()
    yield server
    server.stop()


async def error_for_reply(url: str) -> ResponseError:
    """Why nobody is let in there."""
    client = redis_py_client(url, 2)
    with pytest.raises(ResponseError) as refused:
        await Connector(connection_factory(client), SCRIPTS)(lambda _: None, lambda: None)
    await client.aclose()
    return refused.value


async def refused_with(words: str, data_dir: Path) -> ResponseError:
    """The same of a server, or a proxy before one, that answers everything in these."""

    hung_up = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"-{words}\r\n".encode() * (1 + len(SCRIPTS.load_commands())))
        await reader.read()
        writer.close()
        hung_up.set()

    server = await asyncio.start_unix_server(answer, data_dir / "proxy.sock")
    refusal = await error_for_reply(f"unix://u:{SECRET}@{data_dir}/proxy.sock")
    await hung_up.wait()
    server.close()
    await server.wait_closed()
    return refusal


async def test_a_server_that_knows_no_hello_is_told_of_without_the_password_that_it_repeats(
    own_redis: RedisServer,
) -> None:
    refusal = await error_for_reply(own_redis.url.replace("unix://", f"unix://u:{SECRET}@"))

    assert type(refusal) is HandshakeError
    assert "does not support HELLO" in str(refusal)
    assert SECRET not in str(refusal)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("WRONGPASS invalid username-password pair or user is disabled.", "invalid username-password pair"),
        (f"WRONGPASS no user 'u' with '{SECRET}'", "WRONGPASS"),
        (f"ERR wrong arguments: '3' 'AUTH' 'u' '{SECRET}'", "ERR"),
        (f"{SECRET} is not liked", "an error"),
        ("ERR max number of clients reached", "max number of clients reached"),
    ],
)
async def test_of_a_refusal_only_what_cannot_hold_the_password_is_told(words: str, told: str, data_dir: Path) -> None:
    refusal = await refused_with(words, data_dir)

    assert told in str(refusal)
    assert SECRET not in str(refusal)


async def test_a_database_that_is_not_there_is_told_in_the_servers_words(redis_server: RedisServer) -> None:
    assert "DB index is out of range" in str(await error_for_reply(f"{redis_server.url}?db=99999"))
