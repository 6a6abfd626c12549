"""Every connection encrypted, to each kind of servers: to one, to Sentinels and whom they name, to all of a Cluster.

Servers may ask who comes: then it is a certificate that the service shows.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.sessions.scripts import SCRIPTS
from service.settings import Settings
from tests.cluster_servers import ClusterServers, Node
from tests.conftest import create_session, store_on
from tests.redis_server import RedisServer, free_port, wait_until
from tests.sentinel_servers import MASTER, Sentinel
from tests.tls_proxy import TlsProxy, tls_proxy_to


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trust(authority: trustme.CA, tmp_path: Path) -> str:
    """The options of a URL that trust the authority."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return f"ssl_ca_certs={tmp_path / 'ca.pem'}"


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def asking(authority: trustme.CA, tls: ssl.SSLContext) -> ssl.SSLContext:
    """The same of servers that let in nobody without a certificate of the authority's."""
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    return tls


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> str:
    return certificate_of(authority, tmp_path)


def certificate_of(authority: trustme.CA, folder: Path) -> str:
    """The options of a URL that name a certificate and its key."""
    issued = authority.issue_cert("service.example")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    return f"ssl_certfile={folder / 'certificate.pem'}&ssl_keyfile={folder / 'key.pem'}"


@pytest.fixture
def server(data_dir: Path) -> Iterator[RedisServer]:
    server = RedisServer(data_dir, port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def proxy(server: RedisServer, tls: ssl.SSLContext) -> AsyncIterator[TlsProxy]:
    async with tls_proxy_to(server.port, tls) as proxy:
        yield proxy


async def lives_at(url: str) -> bool:
    """Whether a session that is created there can be read there."""
    source = client_factory(url, 2, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = source.new_client()
    store = store_on(redis_client, Settings())
    try:
        session = await create_session(store)
        return (await store.get(session.id)).id == session.id
    finally:
        await redis_client.aclose()
        await source.aclose()


async def test_to_one_server(proxy: TlsProxy, trust: str) -> None:
    assert await lives_at(f"rediss://127.0.0.1:{proxy.port}?{trust}")
    assert proxy.encrypted == 1


async def test_not_to_one_whose_certificate_nobody_vouches_for(proxy: TlsProxy) -> None:
    with pytest.raises(StoreUnavailable):
        await lives_at(f"rediss://127.0.0.1:{proxy.port}")


async def test_to_one_that_asks_for_a_certificate(
    server: RedisServer, trust: str, certificate: str, asking: ssl.SSLContext
) -> None:
    async with tls_proxy_to(server.port, asking) as proxy:
        assert await lives_at(f"rediss://127.0.0.1:{proxy.port}?{trust}&{certificate}")
        assert proxy.encrypted == 1


@pytest.mark.parametrize("kind", ["rediss", "rediss+cluster"])
async def test_not_to_one_that_asks_for_a_certificate_where_there_is_none(
    server: RedisServer, trust: str, asking: ssl.SSLContext, kind: str
) -> None:
    async with tls_proxy_to(server.port, asking) as proxy:
        with pytest.raises(StoreUnavailable):
            await lives_at(f"{kind}://127.0.0.1:{proxy.port}?{trust}")


async def test_nor_with_one_that_another_authority_gave(
    server: RedisServer, trust: str, asking: ssl.SSLContext, tmp_path: Path
) -> None:
    forged = certificate_of(trustme.CA(), tmp_path)
    async with tls_proxy_to(server.port, asking) as proxy:
        with pytest.raises(StoreUnavailable):
            await lives_at(f"rediss://127.0.0.1:{proxy.port}?{trust}&{forged}")


async def test_to_sentinels_and_the_primary(
    proxy: TlsProxy, trust: str, certificate: str, asking: ssl.SSLContext, tmp_path: Path
) -> None:
    sentinel = Sentinel(tmp_path, None)
    sentinel.start(proxy.port)
    async with tls_proxy_to(sentinel.port, asking) as door_to_sentinel:
        url = f"rediss+sentinel://127.0.0.1:{door_to_sentinel.port}/{MASTER}?{trust}&{certificate}"
        assert await lives_at(url)
        assert door_to_sentinel.encrypted
    assert proxy.encrypted == 1
    sentinel.stop()


@pytest.fixture
def cluster(data_dir: Path) -> Iterator[ClusterServers]:
    """A cluster of the test's own, for it is told to call itself otherwise."""
    servers = ClusterServers(data_dir)
    servers.start()
    yield servers
    servers.stop()


async def test_to_every_server_of_a_cluster(
    cluster: ClusterServers, trust: str, certificate: str, asking: ssl.SSLContext
) -> None:
    async with AsyncExitStack() as stack:
        doors = [await stack.enter_async_context(tls_proxy_to(node.port, asking)) for node in cluster.servers]
        await asyncio.to_thread(announce, cluster, [proxy.port for proxy in doors])
        url = f"rediss+cluster://127.0.0.1:{doors[0].port}?{trust}&{certificate}"

        assert [await lives_at(url) for _ in range(10)] == [True] * 10
        assert all(proxy.encrypted for proxy in doors)


def announce(cluster: ClusterServers, ports: list[int]) -> None:
    """Let each server name its door, and wait until all of them have heard."""
    for node, port in zip(cluster.servers, ports, strict=True):
        node.command("CONFIG", "SET", "cluster-announce-port", port)
    wait_until(lambda: all(announced_by(node) == set(ports) for node in cluster.servers), "the doors are known")


def announced_by(node: Node) -> set[int]:
    return {primary[1] for _, _, primary, *_ in cast(list[Any], node.command("CLUSTER", "SLOTS"))}
