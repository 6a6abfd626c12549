"""A Redis URL taken apart: which kind of servers, where, and what of it redis-py is told."""

import pytest

from service.settings.redis_url import RedisUrl, parse_redis_url


@pytest.mark.parametrize("url", ["redis://h", "redis://u:p@h:1/2?ssl_ca_certs=x", "rediss://h/0", "unix:///a/b?db=1"])
def test_the_url_of_a_server_is_redis_pys(url: str) -> None:
    assert parse_redis_url(url) == RedisUrl("server", url)


def test_sentinels_are_hosts_before_the_name_of_their_primary() -> None:
    found = parse_redis_url("redis+sentinel://user:pass@one:26380,two,[::1]:26381/main/3?socket_keepalive=no")

    assert found == RedisUrl(
        "sentinel",
        "redis://user:pass@primary/3?socket_keepalive=no",
        (("one", 26380), ("two", 26379), ("::1", 26381)),
        "main",
    )


def test_sentinels_may_have_a_login_of_their_own() -> None:
    found = parse_redis_url("redis+sentinel://one/main?sentinel_username=s%40&sentinel_password=p%2F")

    assert found.sentinel_login == ("s@", "p/")
    assert found.server == "redis://primary/0"


def test_a_cluster_is_some_of_its_servers() -> None:
    found = parse_redis_url("redis+cluster://user:pass@one:7001,two?ssl_ca_certs=x")

    assert found == RedisUrl("cluster", "redis://user:pass@node?ssl_ca_certs=x", (("one", 7001), ("two", 6379)))


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_with_rediss_every_connection_is_encrypted(kind: str) -> None:
    assert parse_redis_url(f"rediss+{kind}://one/{'main' if kind == 'sentinel' else ''}").is_encrypted


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://h", "must begin with one of redis://"),
        ("redis://h/name", "the number of a database"),
        ("redis+sentinel://h", "what the Sentinels call the primary"),
        ("redis+sentinel://h/main/x", "what the Sentinels call the primary"),
        ("redis+sentinel:///main", "host:port"),
        ("redis+sentinel://h:port/main", "host:port"),
        ("redis+sentinel://h,,g/main", "host:port"),
        ("redis+cluster://h/1", "a Cluster has no databases"),
        ("redis+cluster://", "host:port"),
    ],
)
def test_what_cannot_be_is_said(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_redis_url(url)


def test_no_fault_says_the_password() -> None:
    with pytest.raises(ValueError, match="host:port") as fault:
        parse_redis_url("redis+cluster://user:secret@h:secret")

    assert "secret" not in str(fault.value)
