"""redis-cli lines reach the same data as the service, for each kind of URL."""

import pytest

from service.settings.redis_url import redis_cli, summed_over_shards

SENTINEL = "redis+sentinel://user:hunter2@one:26380,two/main/3"
CLUSTER = "rediss+cluster://user:hunter2@one:7001,two:7002"


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("redis://127.0.0.1:1/3", "redis-cli -h 127.0.0.1 -p 1 -n 3"),
        ("redis://:hunter2@127.0.0.1:1", "redis-cli -h 127.0.0.1 -p 1"),
        ("redis://user:hunter2@127.0.0.1:1/3", "redis-cli -h 127.0.0.1 -p 1 --user user -n 3"),
        ("redis://127.0.0.1:1?password=hunter2&db=3", "redis-cli -h 127.0.0.1 -p 1 -n 3"),
        ("rediss://user:hunter2@127.0.0.1:1", "redis-cli -h 127.0.0.1 -p 1 --tls --user user"),
        ("unix://user:hunter2@/nowhere/redis.sock?db=3", "redis-cli -s /nowhere/redis.sock --user user -n 3"),
    ],
)
def test_the_line_connects_to_the_server_of_the_url(url: str, command: str) -> None:
    assert redis_cli(url) == command


def test_with_sentinel_the_line_queries_a_sentinel_for_the_primary() -> None:
    assert redis_cli(SENTINEL, "HGETALL", "session:{ab}:1") == (
        "redis-cli $(redis-cli -h one -p 26380 SENTINEL get-master-addr-by-name main | xargs printf -- '-h %s -p %s')"
        " --user user -n 3 HGETALL 'session:{ab}:1'"
    )


def test_in_a_cluster_the_line_follows_redirects() -> None:
    assert redis_cli(CLUSTER, "PTTL", "k") == "redis-cli -c -h one -p 7001 --tls --user user PTTL k"


def test_a_sum_over_all_shards_is_one_line() -> None:
    assert summed_over_shards(CLUSTER, "ZCARD", "sessions:{ }:expiry") == (
        r"printf 'ZCARD sessions:{%02x}:expiry\n' $(seq 0 255)"
        " | redis-cli -c -h one -p 7001 --tls --user user | awk '{ n += $1 } END { print n }'"
    )


@pytest.mark.parametrize("url", [SENTINEL, CLUSTER, "redis://user:hunter2@one"])
def test_a_line_does_not_contain_the_password(url: str) -> None:
    assert "hunter2" not in redis_cli(url, "PING")
