"""A Redis URL taken apart: it names one server, the Sentinels that know which one, or some servers of a Cluster."""

import re
import shlex
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio.connection import parse_url

Kind = Literal["server", "sentinel", "cluster"]
Host = tuple[str, int]

_SCHEMES: dict[str, tuple[Kind, str]] = {
    "redis": ("server", "redis"),
    "rediss": ("server", "rediss"),
    "unix": ("server", "unix"),
    "redis+sentinel": ("sentinel", "redis"),
    "rediss+sentinel": ("sentinel", "rediss"),
    "redis+cluster": ("cluster", "redis"),
    "rediss+cluster": ("cluster", "rediss"),
}
_PORTS: dict[Kind, int] = {"sentinel": 26379, "cluster": 6379}
_HOST = re.compile(r"(\[[^\[\]]+\]|[^\[\]:]+)(?::(\d{1,5}))?")
_SENTINEL_PATH = re.compile(r"/([^/]+)(?:/(\d*))?")


class RedisUrl(NamedTuple):
    """`server` is a URL as redis-py knows them: of the server itself, or for whichever server of `hosts` it will be.

    `hosts` are Sentinels or servers of a Cluster, `master` is what the Sentinels call the primary, and
    `sentinel_login` the user and password for the Sentinels themselves, where they ask for them.
    """

    kind: Kind
    server: str
    hosts: tuple[Host, ...] = ()
    master: str = ""
    sentinel_login: tuple[str | None, str | None] = (None, None)

    @property
    def is_encrypted(self) -> bool:
        return self.server.startswith("rediss:")


class _Parts(NamedTuple):
    netloc: str
    path: str
    options: dict[str, str]


def parse_redis_url(url: str) -> RedisUrl:
    """Raises ValueError, in words that hold nothing of the URL but its scheme."""
    found, separator, rest = url.partition("://")
    scheme = found if separator else ""
    if scheme not in _SCHEMES:
        kinds = ", ".join(f"{kind}://" for kind in _SCHEMES)
        raise ValueError(f"the URL must begin with one of {kinds}, not with {scheme!r}")
    kind, plain = _SCHEMES[scheme]
    match kind:
        case "server":
            return _of_a_server(f"{plain}://{rest}")
        case "sentinel":
            return _of_sentinels(plain, _parts_of(rest))
        case "cluster":
            return _of_a_cluster(plain, _parts_of(rest))


def _parts_of(rest: str) -> _Parts:
    """Of what follows the scheme. The library takes several hosts for one, and refuses those with brackets."""
    before, _, query = rest.partition("?")
    netloc, slash, path = before.partition("/")
    return _Parts(netloc, slash + path, dict(parse_qsl(query)))


def _of_a_server(url: str) -> RedisUrl:
    parts = urlsplit(url)
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        raise ValueError("the URL's path must be the number of a database, or nothing")
    return RedisUrl("server", url)


def _of_sentinels(scheme: str, parts: _Parts) -> RedisUrl:
    named = _SENTINEL_PATH.fullmatch(parts.path)
    if not named:
        raise ValueError("the URL's path must be what the Sentinels call the primary, and may add a database: /main/0")
    login, hosts = _login_and_hosts(parts.netloc, "sentinel")
    options = dict(parts.options)
    sentinel_login = options.pop("sentinel_username", None), options.pop("sentinel_password", None)
    server = f"{scheme}://{login}primary/{named[2] or 0}{_query(options)}"
    return RedisUrl("sentinel", server, hosts, named[1], sentinel_login)


def _of_a_cluster(scheme: str, parts: _Parts) -> RedisUrl:
    if parts.path not in ("", "/", "/0"):
        raise ValueError("the URL may have no path: a Cluster has no databases")
    login, hosts = _login_and_hosts(parts.netloc, "cluster")
    return RedisUrl("cluster", f"{scheme}://{login}node{_query(parts.options)}", hosts)


def _login_and_hosts(netloc: str, kind: Kind) -> tuple[str, tuple[Host, ...]]:
    """What stands before the hosts, with its `@`, and the hosts."""
    login, at, listed = netloc.rpartition("@")
    return login + at, tuple(_host(name, kind) for name in listed.split(","))


def _host(name: str, kind: Kind) -> Host:
    found = _HOST.fullmatch(name)
    if not found:
        raise ValueError("the URL must name hosts as host:port,host:port")
    return found[1].strip("[]"), int(found[2] or _PORTS[kind])


def _query(options: dict[str, str]) -> str:
    return f"?{urlencode(options)}" if options else ""


def redis_cli(url: str, *command: str) -> str:
    """Build the redis-cli line that runs `command`, or opens a prompt. It contains no password.

    With Sentinel, the line first queries a Sentinel for the primary.
    """
    parsed = parse_redis_url(url)
    line = f"{_address_options(parsed)}{_connection_options(parsed)}"
    return f"redis-cli {line} {shlex.join(command)}".rstrip()


def summed_over_shards(url: str, command: str, key: str, *arguments: str) -> str:
    """Build the shell line that sums the replies to `command` over all shards. In `key`, a space means the shard."""
    key = key.replace("\\", "\\\\").replace("%", "%%").replace("{ }", "{%02x}")
    lines = shlex.quote(" ".join([command, key, *arguments]) + "\\n")
    return f"printf {lines} $(seq 0 255) | {redis_cli(url)} | awk '{{ n += $1 }} END {{ print n }}'"


def _address_options(url: RedisUrl) -> str:
    match url.kind:
        case "cluster":
            return f"-c {_host_options(url.hosts[0])}"
        case "sentinel":
            sentinel = f"{_host_options(url.hosts[0])}{_tls_option(url)}"
            query = f"redis-cli {sentinel} SENTINEL get-master-addr-by-name {shlex.quote(url.master)}"
            return f"$({query} | xargs printf -- '-h %s -p %s')"
        case "server":
            options = parse_url(url.server)
            if "path" in options:
                return shlex.join(["-s", options["path"]])
            return _host_options((options.get("host", "localhost"), options.get("port", 6379)))


def _connection_options(url: RedisUrl) -> str:
    options = parse_url(url.server)
    user = f" --user {shlex.quote(options['username'])}" if options.get("username") else ""
    database = f" -n {options['db']}" if options.get("db") else ""
    return f"{_tls_option(url)}{user}{database}"


def _tls_option(url: RedisUrl) -> str:
    return " --tls" if url.is_encrypted else ""


def _host_options(host: Host) -> str:
    return shlex.join(["-h", host[0], "-p", str(host[1])])
