"""Connections log in, and failures to log in are reported without credentials."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.redis_client.connector import Connector, HandshakeError
from service.redis_client.factory import connection_factory, redis_py_client
from service.sessions.scripts import SCRIPTS
from tests.redis_client.conftest import connected
from tests.redis_server import RedisServer

PASSWORD = "topsecret99"


class ServerWithoutHello(RedisServer):
    """A server on which HELLO is disabled."""

    def __init__(self, folder: Path) -> None:
        configuration = folder / "own.conf"
        configuration.write_text('rename-command HELLO ""\n')
        super().__init__(folder, settings={"include": str(configuration)})

    @property
    def url(self) -> str:
        return super().url + "?protocol=2"  # with RESP3, redis-py itself sends HELLO


@pytest.fixture
def server_without_hello(data_dir: Path) -> Iterator[RedisServer]:
    server = ServerWithoutHello(data_dir)
    server.start()
    yield server
    server.stop()


async def handshake_error(url: str) -> ResponseError:
    client = redis_py_client(url, 10)
    with pytest.raises(ResponseError) as error:
        await Connector(connection_factory(client), SCRIPTS)(lambda _: None, lambda: None)
    await client.aclose()
    return error.value


async def error_for_reply(message: str, data_dir: Path) -> ResponseError:
    """The error if the server replies to every command with this error message."""
    is_disconnected = asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"-{message}\r\n".encode() * (1 + len(SCRIPTS.load_commands())))
        await reader.read()
        writer.close()
        is_disconnected.set()

    server = await asyncio.start_unix_server(reply, data_dir / "fake.sock")
    error = await handshake_error(f"unix://u:{PASSWORD}@{data_dir}/fake.sock")
    await is_disconnected.wait()
    server.close()
    await server.wait_closed()
    return error


async def test_a_connection_sets_the_name_of_the_client(redis_server: RedisServer, real_redis: Redis) -> None:
    async with connected(redis_server.url) as client:
        await client.query(("PING",))

        names = [connection["name"] for connection in await real_redis.client_list()]

    assert "session-service" in names


async def test_a_server_without_hello_is_reported_without_the_password_that_it_repeats(
    server_without_hello: RedisServer,
) -> None:
    error = await handshake_error(server_without_hello.url.replace("unix://", f"unix://u:{PASSWORD}@"))

    assert type(error) is HandshakeError
    assert "does not support HELLO" in str(error)
    assert PASSWORD not in str(error)


@pytest.mark.parametrize(
    ("message", "reported"),
    [
        ("WRONGPASS invalid username-password pair or user is disabled.", "invalid username-password pair"),
        (f"WRONGPASS no user 'u' with '{PASSWORD}'", "WRONGPASS"),
        (f"ERR wrong arguments: '3' 'AUTH' 'u' '{PASSWORD}'", "ERR"),
        (f"{PASSWORD} is not accepted", "an error"),
        ("ERR max number of clients reached", "max number of clients reached"),
    ],
)
async def test_an_error_reply_is_reported_only_if_it_cannot_contain_the_password(
    message: str, reported: str, data_dir: Path
) -> None:
    error = await error_for_reply(message, data_dir)

    assert reported in str(error)
    assert PASSWORD not in str(error)


async def test_an_unknown_database_is_reported_with_the_message_of_redis(redis_server: RedisServer) -> None:
    assert "DB index is out of range" in str(await handshake_error(f"{redis_server.url}?db=99999"))
