"""Where a request comes from, by its peer and by what proxies say."""

from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector, web
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.api.client_address import UNKNOWN_ADDRESS, ClientAddresses
from service.settings import Settings
from service.settings.networks import parse_networks
from tests.conftest import HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS

CLIENT = "203.0.113.7"
PROXY = "10.0.0.1"
FORGED = {"X-Forwarded-For": CLIENT}
BEHIND_PROXIES = ClientAddresses([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])


def came(peer: str | None, *forwarded: str) -> Any:
    """A request from this peer, with these lines of X-Forwarded-For."""
    return SimpleNamespace(remote=peer, headers=CIMultiDict([("X-Forwarded-For", line) for line in forwarded]))


@pytest.mark.parametrize("forwarded", [(), ("198.51.100.1",), ("nonsense",)], ids=range(3))
def test_who_is_not_trusted_is_the_client_whatever_it_says(forwarded: tuple[str, ...]) -> None:
    assert BEHIND_PROXIES.address_of(came(CLIENT, *forwarded)) == CLIENT


@pytest.mark.parametrize("peer", [CLIENT, "127.0.0.1", PROXY])
def test_by_default_nobody_is_trusted(peer: str) -> None:
    assert ClientAddresses(Settings().trusted_networks).address_of(came(peer, "198.51.100.1")) == peer


@pytest.mark.parametrize(
    "forwarded",
    [
        (CLIENT,),
        (f"198.51.100.1, {CLIENT}",),
        (f"{CLIENT},10.0.0.2 , 10.0.0.3",),
        ("198.51.100.1", f"{CLIENT}, 10.0.0.2", "10.0.0.3"),
        (f"10.0.0.9, {CLIENT}, 10.0.0.2",),
        (f"{CLIENT}, 2001:db8::1",),
        (f"{CLIENT}, ::ffff:10.0.0.2",),
        (f"nonsense, {CLIENT}",),
    ],
    ids=range(8),
)
def test_the_last_address_that_is_no_trusted_proxy_is_the_client(forwarded: tuple[str, ...]) -> None:
    assert BEHIND_PROXIES.address_of(came(PROXY, *forwarded)) == CLIENT


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("", PROXY),
        ("unknown", PROXY),
        (f"{CLIENT}, ", PROXY),
        (f"{CLIENT}, _hidden", PROXY),
        (f"{CLIENT}, nonsense, 10.0.0.2", "10.0.0.2"),
        (f"{CLIENT}, {'1' * 5000}", PROXY),
        (f"{CLIENT}, 10.0.0.300", PROXY),
        (f"{CLIENT}, 10.0.0.0/8", PROXY),
    ],
    ids=range(8),
)
def test_what_is_no_address_ends_the_search_at_the_proxy_behind_it(forwarded: str, address: str) -> None:
    assert BEHIND_PROXIES.address_of(came(PROXY, forwarded)) == address


def test_where_all_are_trusted_it_is_the_first() -> None:
    assert BEHIND_PROXIES.address_of(came(PROXY, "10.0.0.3, 10.0.0.2")) == "10.0.0.3"


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("203.0.113.7:4711", CLIENT),
        ("[2a00:1450::1]", "2a00:1450::1"),
        ("[2a00:1450::1]:4711", "2a00:1450::1"),
        ("2A00:1450:0:0:0:0:0:1", "2a00:1450::1"),
        ("::ffff:203.0.113.7", CLIENT),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_is_written_in_one_way(word: str, address: str) -> None:
    assert BEHIND_PROXIES.address_of(came(PROXY, word)) == address
    assert BEHIND_PROXIES.address_of(came(word)) == address


@pytest.mark.parametrize("peer", [None, "", "/run/service.sock", "\x00abstract"], ids=range(4))
def test_a_peer_without_an_address_is_trusted_with_nothing(peer: str | None) -> None:
    assert BEHIND_PROXIES.address_of(came(peer, CLIENT)) == UNKNOWN_ADDRESS


@pytest.mark.parametrize("text", ["10.0.0.0/8 ::1", "10.0.0.0/8,::1", " 10.0.0.0/8 ,  ::1, "], ids=range(3))
def test_proxies_stand_between_blanks_and_commas(text: str) -> None:
    assert parse_networks(text) == [ip_network("10.0.0.0/8"), ip_network("::1")]


@pytest.mark.parametrize(
    ("trusted", "address"), [("", "127.0.0.1"), ("127.0.0.1", CLIENT), ("10.0.0.0/8", "127.0.0.1")]
)
async def test_the_service_trusts_whom_it_was_told(
    fake_redis: Redis, aiohttp_client: AiohttpClient, trusted: str, address: str
) -> None:
    settings = Settings(trusted_proxies=trusted, session_rate_per_address="9/hour")
    client: HttpClient = await aiohttp_client(ServiceServer(settings, fake_redis))

    await client.get(SESSIONS, headers={"X-Forwarded-For": CLIENT})

    assert await fake_redis.keys("*address*") == [f"sessions:address:{{{address}}}:requests".encode()]


async def test_what_comes_by_a_unix_socket_is_answered(fake_redis: Redis, data_dir: Path) -> None:
    settings = Settings(trusted_proxies="127.0.0.1", session_rate_per_address="1/hour")
    server = ServiceServer(settings, fake_redis)
    await server.start_server()
    assert server.runner is not None
    await web.UnixSite(server.runner, str(data_dir / "service.sock")).start()

    async with ClientSession(connector=UnixConnector(str(data_dir / "service.sock"))) as http:
        statuses = [(await http.get("http://here" + SESSIONS, headers=FORGED)).status for _ in range(2)]
    await server.close()

    assert statuses == [200, 429]
