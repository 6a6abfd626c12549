"""The client address of a request, by its peer and by X-Forwarded-For."""

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
from service.settings.http import parse_networks
from tests.conftest import HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS

CLIENT = "203.0.113.7"
PROXY = "10.0.0.1"
TRUSTING = ClientAddresses([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])


def request_from(peer: str | None, *forwarded: str) -> Any:
    """A request with these lines of X-Forwarded-For."""
    return SimpleNamespace(remote=peer, headers=CIMultiDict([("X-Forwarded-For", line) for line in forwarded]))


@pytest.mark.parametrize("forwarded", [(), ("198.51.100.1",), ("nonsense",)], ids=range(3))
def test_an_untrusted_peer_is_the_client(forwarded: tuple[str, ...]) -> None:
    assert TRUSTING.address_of(request_from(CLIENT, *forwarded)) == CLIENT


@pytest.mark.parametrize("peer", [CLIENT, "127.0.0.1", PROXY])
def test_no_proxy_is_trusted_by_default(peer: str) -> None:
    addresses = ClientAddresses(Settings().trusted_networks)

    assert addresses.address_of(request_from(peer, "198.51.100.1")) == peer


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
def test_the_last_address_that_is_not_a_trusted_proxy_is_the_client(forwarded: tuple[str, ...]) -> None:
    assert TRUSTING.address_of(request_from(PROXY, *forwarded)) == CLIENT


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
def test_the_search_stops_at_an_invalid_address(forwarded: str, address: str) -> None:
    assert TRUSTING.address_of(request_from(PROXY, forwarded)) == address


def test_the_first_address_is_the_client_if_all_are_trusted_proxies() -> None:
    assert TRUSTING.address_of(request_from(PROXY, "10.0.0.3, 10.0.0.2")) == "10.0.0.3"


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
def test_addresses_are_normalized(word: str, address: str) -> None:
    assert TRUSTING.address_of(request_from(PROXY, word)) == address
    assert TRUSTING.address_of(request_from(word)) == address


@pytest.mark.parametrize("peer", [None, "", "/run/service.sock", "\x00abstract"], ids=range(4))
def test_a_peer_without_an_address_is_not_trusted(peer: str | None) -> None:
    assert TRUSTING.address_of(request_from(peer, CLIENT)) == UNKNOWN_ADDRESS


@pytest.mark.parametrize("text", ["10.0.0.0/8 ::1", "10.0.0.0/8,::1", " 10.0.0.0/8 ,  ::1, "], ids=range(3))
def test_networks_are_separated_by_blanks_or_commas(text: str) -> None:
    assert parse_networks(text) == [ip_network("10.0.0.0/8"), ip_network("::1")]


@pytest.mark.parametrize(
    ("trusted", "address"), [("", "127.0.0.1"), ("127.0.0.1", CLIENT), ("10.0.0.0/8", "127.0.0.1")]
)
async def test_the_service_trusts_the_proxies_in_the_settings(
    redis: Redis, aiohttp_client: AiohttpClient, trusted: str, address: str
) -> None:
    settings = Settings(trusted_proxies=trusted, session_rate_per_address="9/hour")
    client: HttpClient = await aiohttp_client(ServiceServer(settings, redis))

    await client.get(SESSIONS, headers={"X-Forwarded-For": CLIENT})

    assert await redis.keys("*address*") == [f"sessions:address:{{{address}}}:requests".encode()]


async def test_clients_of_a_unix_socket_are_served_and_limited(redis: Redis, data_dir: Path) -> None:
    settings = Settings(trusted_proxies="127.0.0.1", session_rate_per_address="1/hour")
    server = ServiceServer(settings, redis)
    await server.start_server()
    assert server.runner is not None
    await web.UnixSite(server.runner, str(data_dir / "service.sock")).start()

    async with ClientSession(connector=UnixConnector(str(data_dir / "service.sock"))) as http:
        headers = {"X-Forwarded-For": CLIENT}
        statuses = [(await http.get("http://localhost" + SESSIONS, headers=headers)).status for _ in range(2)]
    await server.close()

    assert statuses == [200, 429]


@pytest.mark.parametrize(
    ("text", "network"),
    [("::ffff:127.0.0.0/104", "127.0.0.0/8"), ("::ffff:10.0.0.1", "10.0.0.1"), ("::ffff:0:0/96", "0.0.0.0/0")],
)
def test_networks_of_ipv4_addresses_in_ipv6_addresses_are_ipv4_networks(text: str, network: str) -> None:
    assert parse_networks(text) == [ip_network(network)]
