"""Redis URLs of servers, Sentinels and Clusters are parsed into hosts and a URL for redis-py."""

import pytest

from service.settings.redis_url import RedisUrl, parse_redis_url


@pytest.mark.parametrize("url", ["redis://h", "redis://u:p@h:1/2?ssl_ca_certs=x", "rediss://h/0", "unix:///a/b?db=1"])
def test_the_url_of_a_server_is_passed_to_redis_py(url: str) -> None:
    assert parse_redis_url(url) == RedisUrl("server", url)


def test_a_sentinel_url_lists_the_sentinels_and_names_the_primary() -> None:
    url = parse_redis_url("redis+sentinel://user:pass@one:26380,two,[::1]:26381/main/3?socket_keepalive=no")

    assert url == RedisUrl(
        "sentinel",
        "redis://user:pass@primary/3?socket_keepalive=no",
        (("one", 26380), ("two", 26379), ("::1", 26381)),
        "main",
    )


def test_sentinels_can_have_their_own_login() -> None:
    url = parse_redis_url("redis+sentinel://one/main?sentinel_username=s%40&sentinel_password=p%2F")

    assert url.sentinel_login == ("s@", "p/")
    assert url.server == "redis://primary/0"


def test_a_cluster_url_lists_nodes() -> None:
    url = parse_redis_url("redis+cluster://user:pass@one:7001,two?ssl_ca_certs=x")

    assert url == RedisUrl("cluster", "redis://user:pass@node?ssl_ca_certs=x", (("one", 7001), ("two", 6379)))


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_rediss_encrypts_every_connection(kind: str) -> None:
    assert parse_redis_url(f"rediss+{kind}://one/{'main' if kind == 'sentinel' else ''}").is_encrypted


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://h", "must start with one of redis://"),
        ("redis://h/name", "a database number"),
        ("redis+sentinel://h", "the name of the primary"),
        ("redis+sentinel://h/main/x", "the name of the primary"),
        ("redis+sentinel:///main", "host:port"),
        ("redis+sentinel://h:port/main", "host:port"),
        ("redis+sentinel://h,,g/main", "host:port"),
        ("redis+cluster://h/1", "a Cluster has only database 0"),
        ("redis+cluster://", "host:port"),
    ],
)
def test_an_invalid_url_is_an_error(url: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse_redis_url(url)


def test_an_error_does_not_repeat_the_password() -> None:
    with pytest.raises(ValueError, match="host:port") as error:
        parse_redis_url("redis+cluster://user:secret@h:secret")

    assert "secret" not in str(error.value)
