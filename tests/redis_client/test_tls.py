"""Connections with TLS, also with client certificates, to one server, to Sentinels and to a cluster."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from service.errors import StoreUnavailable
from service.settings import Settings
from tests.cluster_servers import ClusterServers, Node
from tests.conftest import create_session, new_session_store
from tests.redis_client.conftest import connected
from tests.redis_server import RedisServer, free_port, wait_until
from tests.sentinel_servers import MASTER, Sentinel
from tests.tls_proxy import TlsProxy, tls_proxy_to


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trust(authority: trustme.CA, tmp_path: Path) -> str:
    """URL options that trust the certificate authority."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return f"ssl_ca_certs={tmp_path / 'ca.pem'}"


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def mutual_tls(authority: trustme.CA, tls: ssl.SSLContext) -> ssl.SSLContext:
    """The context of a server that requires a client certificate."""
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    return tls


@pytest.fixture
def client_certificate(authority: trustme.CA, tmp_path: Path) -> str:
    return certificate_of(authority, tmp_path)


def certificate_of(authority: trustme.CA, folder: Path) -> str:
    """URL options with a client certificate and its key."""
    issued = authority.issue_cert("service.example")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    return f"ssl_certfile={folder / 'certificate.pem'}&ssl_keyfile={folder / 'key.pem'}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("r"), port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def proxy(server: RedisServer, tls: ssl.SSLContext) -> AsyncIterator[TlsProxy]:
    async with tls_proxy_to(server.port, tls) as proxy:
        yield proxy


async def session_survives(url: str) -> bool:
    """Whether a session can be created and read."""
    async with connected(url) as client:
        store = new_session_store(client, Settings())
        session = await create_session(store)
        return (await store.get(session.id)).id == session.id


async def test_one_server_is_reached_over_tls(proxy: TlsProxy, trust: str) -> None:
    assert await session_survives(f"rediss://127.0.0.1:{proxy.port}?{trust}")
    assert proxy.encrypted == 1


async def test_a_server_with_an_untrusted_certificate_is_unavailable(proxy: TlsProxy) -> None:
    with pytest.raises(StoreUnavailable):
        await session_survives(f"rediss://127.0.0.1:{proxy.port}")


async def test_requests_have_a_time_limit_while_a_certificate_file_does_not_respond(
    proxy: TlsProxy, tmp_path: Path
) -> None:
    pipe = tmp_path / "ca.pem"
    os.mkfifo(pipe)

    async with connected(f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={pipe}", timeout_seconds=0.1) as client:
        with pytest.raises(StoreUnavailable):
            await client.query(("PING",))

    await asyncio.to_thread(pipe.write_bytes, b"")  # ends the read


async def test_a_server_that_requires_a_client_certificate_accepts_it(
    server: RedisServer, trust: str, client_certificate: str, mutual_tls: ssl.SSLContext
) -> None:
    async with tls_proxy_to(server.port, mutual_tls) as proxy:
        assert await session_survives(f"rediss://127.0.0.1:{proxy.port}?{trust}&{client_certificate}")
        assert proxy.encrypted == 1


@pytest.mark.parametrize("scheme", ["rediss", "rediss+cluster"])
async def test_a_server_is_unavailable_without_the_client_certificate_that_it_requires(
    server: RedisServer, trust: str, mutual_tls: ssl.SSLContext, scheme: str
) -> None:
    async with tls_proxy_to(server.port, mutual_tls) as proxy:
        with pytest.raises(StoreUnavailable):
            await session_survives(f"{scheme}://127.0.0.1:{proxy.port}?{trust}")


async def test_a_server_is_unavailable_with_a_client_certificate_of_another_authority(
    server: RedisServer, trust: str, mutual_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    forged = certificate_of(trustme.CA(), tmp_path)
    async with tls_proxy_to(server.port, mutual_tls) as proxy:
        with pytest.raises(StoreUnavailable):
            await session_survives(f"rediss://127.0.0.1:{proxy.port}?{trust}&{forged}")


async def test_a_sentinel_and_the_primary_are_reached_over_tls(
    proxy: TlsProxy, trust: str, client_certificate: str, mutual_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    sentinel = Sentinel(tmp_path, None)
    sentinel.start(proxy.port)
    async with tls_proxy_to(sentinel.port, mutual_tls) as sentinel_proxy:
        url = f"rediss+sentinel://127.0.0.1:{sentinel_proxy.port}/{MASTER}?{trust}&{client_certificate}"
        assert await session_survives(url)
        assert sentinel_proxy.encrypted
    assert proxy.encrypted == 1
    sentinel.stop()


@pytest.fixture
def cluster(data_dir: Path) -> Iterator[ClusterServers]:
    """A cluster for one test, which changes the announced ports."""
    servers = ClusterServers(data_dir)
    servers.start()
    yield servers
    servers.stop()


async def test_all_nodes_of_a_cluster_are_reached_over_tls(
    cluster: ClusterServers, trust: str, client_certificate: str, mutual_tls: ssl.SSLContext
) -> None:
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(tls_proxy_to(node.port, mutual_tls)) for node in cluster.servers]
        await asyncio.to_thread(announce, cluster, [proxy.port for proxy in proxies])
        url = f"rediss+cluster://127.0.0.1:{proxies[0].port}?{trust}&{client_certificate}"

        assert [await session_survives(url) for _ in range(10)] == [True] * 10
        assert all(proxy.encrypted for proxy in proxies)


def announce(cluster: ClusterServers, ports: list[int]) -> None:
    """Let each node announce the port of its proxy, and wait until all nodes have received the announcements."""
    for node, port in zip(cluster.servers, ports, strict=True):
        node.command("CONFIG", "SET", "cluster-announce-port", port)
    wait_until(lambda: all(announced_to(node) == set(ports) for node in cluster.servers), "the ports are announced")


def announced_to(node: Node) -> set[int]:
    return {primary[1] for _, _, primary, *_ in cast(list[Any], node.command("CLUSTER", "SLOTS"))}
