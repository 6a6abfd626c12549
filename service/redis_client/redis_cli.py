"""The lines of redis-cli that look into the same Redis; a password stays out of them."""

import shlex

from redis.asyncio.connection import parse_url

from service.settings.redis_url import Host, RedisUrl, parse_redis_url


def redis_cli(url: str, *command: str) -> str:
    """The line that carries out `command` at this URL; without one, it opens a prompt there.

    Sentinels are asked for the primary first, within the line.
    """
    apart = parse_redis_url(url)
    line = f"{_address(apart)}{_how(apart)}"
    return f"redis-cli {line} {shlex.join(command)}".rstrip()


def summed_over_shards(url: str, command: str, key: str, *arguments: str) -> str:
    """The line that adds up what `command` answers in all shards; in `key` a blank stands for the shard."""
    key = key.replace("\\", "\\\\").replace("%", "%%").replace("{ }", "{%02x}")
    asked = shlex.quote(" ".join([command, key, *arguments]) + "\\n")
    return f"printf {asked} $(seq 0 255) | {redis_cli(url)} | awk '{{ n += $1 }} END {{ print n }}'"


def _address(url: RedisUrl) -> str:
    match url.kind:
        case "cluster":
            return f"-c {_host(url.hosts[0])}"
        case "sentinel":
            asked = (
                f"redis-cli {_host(url.hosts[0])}{_tls(url)} SENTINEL get-master-addr-by-name {shlex.quote(url.master)}"
            )
            return f"$({asked} | xargs printf -- '-h %s -p %s')"
        case "server":
            named = parse_url(url.server)
            if "path" in named:
                return shlex.join(["-s", named["path"]])
            return _host((named.get("host", "localhost"), named.get("port", 6379)))


def _how(url: RedisUrl) -> str:
    named = parse_url(url.server)
    user = f" --user {shlex.quote(named['username'])}" if named.get("username") else ""
    database = f" -n {named['db']}" if named.get("db") else ""
    return f"{_tls(url)}{user}{database}"


def _tls(url: RedisUrl) -> str:
    return " --tls" if url.is_encrypted else ""


def _host(host: Host) -> str:
    return shlex.join(["-h", host[0], "-p", str(host[1])])
