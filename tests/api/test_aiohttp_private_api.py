"""The private names and signatures of aiohttp that service/api/server relies on.

If an upgrade of aiohttp changes one of them, these tests fail. Then review the package, and change the test with it.
"""

import ast
import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import attr
import pytest
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.test_utils import TestServer, make_mocked_request
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from aiohttp.web_urldispatcher import MatchInfoError

SERVICE = Path(__file__).parent.parent.parent / "service"
PUBLIC_MODULES = {"aiohttp", "aiohttp.web"}

SIGNATURES = {
    RequestHandler.connection_made: ["self", "transport"],
    RequestHandler.data_received: ["self", "data"],
    RequestHandler.force_close: ["self"],
    RequestHandler.handle_error: ["self", "request", "status", "exc", "message"],
    RequestHandler.log_exception: ["self", "args", "kw"],
    web.Server.__call__: ["self"],
    web.Server.connection_made: ["self", "handler", "transport"],
    web.Server.connection_lost: ["self", "handler", "exc"],
    web.Server.pre_shutdown: ["self"],
    web.Server.__init__: ["self", "handler", "request_factory", "handler_cancellation", "loop", "kwargs"],
    web.AppRunner._make_server: ["self"],
    web.StreamResponse.prepare: ["self", "request"],
    web.StreamResponse.write_eof: ["self", "data"],
    web.Response._prepare_headers: ["self"],
    MatchInfoError.__init__: ["self", "http_exception"],
    LineTooLong.__init__: ["self", "line", "limit", "actual_size"],
    StreamReader.set_exception: ["self", "exc", "exc_cause"],
    TestServer._make_runner: ["self", "kwargs"],
}

CONNECTION_OPTIONS = {
    "access_log",
    "auto_decompress",
    "keepalive_timeout",
    "lingering_time",
    "max_field_size",
    "max_headers",
    "max_line_size",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_a_method_has_these_parameters(function: object) -> None:
    assert callable(function)
    assert list(inspect.signature(function).parameters) == SIGNATURES[function]  # type: ignore[index]


def test_a_connection_has_these_options() -> None:
    assert inspect.signature(RequestHandler.__init__).parameters.keys() >= CONNECTION_OPTIONS


async def test_a_new_connection_has_these_attributes() -> None:
    server = web.Server(_respond)

    connection = RequestHandler(server, loop=asyncio.get_running_loop())

    assert (connection._manager, connection._loop) == (server, asyncio.get_running_loop())
    assert (connection._current_request, connection._waiter) == (None, None)
    assert (list(connection._messages), connection._request_count) == ([], 0)
    assert connection._force_close is False


async def test_a_server_has_its_connections_and_options() -> None:
    server = web.Server(_respond, debug=True)

    assert server._connections == {}
    assert server._loop is asyncio.get_running_loop()
    assert server._kwargs == {"debug": True}


async def test_a_runner_keeps_the_options_of_its_server() -> None:
    assert web.AppRunner(web.Application(), max_headers=7)._kwargs["max_headers"] == 7


def test_a_request_has_a_version_and_a_match() -> None:
    request = make_mocked_request("GET", "/")

    assert request._version == (1, 1)
    assert request._match_info is not None


def test_the_head_of_a_request_has_these_attributes() -> None:
    message = make_mocked_request("GET", "/")._message._replace(upgrade=True, should_close=True)

    assert (message.upgrade, message.should_close, message.chunked) == (True, True, False)


def test_a_parse_error_has_a_status_an_exception_and_a_message() -> None:
    assert [field.name for field in attr.fields(_ErrInfo)] == ["status", "exc", "message"]
    assert EMPTY_PAYLOAD.is_eof()


def test_the_error_of_a_long_line_contains_its_limit() -> None:
    assert LineTooLong(b"line", 8190).args[1] == 8190


def test_only_the_server_package_uses_private_modules_of_aiohttp() -> None:
    private = {
        (path.relative_to(SERVICE).parts[:2], module)
        for path in SERVICE.rglob("*.py")
        for module in _aiohttp_modules(path)
        if module not in PUBLIC_MODULES
    }

    assert {parts for parts, _ in private} == {("api", "server")}
    assert {module for _, module in private} == {
        "aiohttp.abc",
        "aiohttp.http_exceptions",
        "aiohttp.streams",
        "aiohttp.web_protocol",
        "aiohttp.web_urldispatcher",
    }


async def _respond(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


def _aiohttp_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.startswith("aiohttp"))
            case ast.ImportFrom(module=str(module)) if module.startswith("aiohttp"):
                yield module
