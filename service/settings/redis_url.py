"""Redis URLs of a single server, of Sentinels, or of a Cluster, and redis-cli command lines for them."""

import re
import shlex
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

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
_DEFAULT_PORTS: dict[Kind, int] = {"sentinel": 26379, "cluster": 6379}
_HOST = re.compile(r"(\[[^\[\]]+\]|[^\[\]:]+)(?::(\d{1,5}))?")
_SENTINEL_PATH = re.compile(r"/([^/]+)(?:/(\d*))?")


class RedisUrl(NamedTuple):
    """A parsed URL.

    `server` is a URL for redis-py. Behind Sentinels or in a Cluster its host is a placeholder, and `hosts` are the
    Sentinels or the first cluster nodes. `master` is the name of the primary in Sentinel. `sentinel_login` has the user
    and the password for the Sentinels.
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
    """Parse a URL. Raises ValueError; its message repeats only the scheme, because a URL may contain a password."""
    before, separator, rest = url.partition("://")
    scheme = before if separator else ""
    if scheme not in _SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise ValueError(f"must start with one of {schemes} (got {scheme!r})")
    kind, plain_scheme = _SCHEMES[scheme]
    match kind:
        case "server":
            return _parse_server(f"{plain_scheme}://{rest}")
        case "sentinel":
            return _parse_sentinels(plain_scheme, _split(rest))
        case "cluster":
            return _parse_cluster(plain_scheme, _split(rest))


def with_password(url: str, password: str) -> str:
    """Add a password to a URL that has none. A password in the URL has precedence."""
    scheme, _, rest = url.partition("://")
    netloc = re.split(r"[/?]", rest, maxsplit=1)[0]
    user, _, hosts = netloc.rpartition("@")
    if ":" in user:
        return url
    return f"{scheme}://{user}:{quote(password, safe='')}@{hosts}{rest[len(netloc) :]}"


def _split(rest: str) -> _Parts:
    """Split what follows the scheme. `urlsplit` does not support several hosts."""
    before, _, query = rest.partition("?")
    netloc, slash, path = before.partition("/")
    return _Parts(netloc, slash + path, dict(parse_qsl(query)))


def _parse_server(url: str) -> RedisUrl:
    parts = urlsplit(url)
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        raise ValueError("must have a database number as its path, or no path")
    return RedisUrl("server", url)


def _parse_sentinels(scheme: str, parts: _Parts) -> RedisUrl:
    path = _SENTINEL_PATH.fullmatch(parts.path)
    if not path:
        raise ValueError("must have the name of the primary as its path, optionally with a database: /main/0")
    login, hosts = _parse_netloc(parts.netloc, "sentinel")
    options = dict(parts.options)
    sentinel_login = options.pop("sentinel_username", None), options.pop("sentinel_password", None)
    server = f"{scheme}://{login}primary/{path[2] or 0}{_query(options)}"
    return RedisUrl("sentinel", server, hosts, path[1], sentinel_login)


def _parse_cluster(scheme: str, parts: _Parts) -> RedisUrl:
    if parts.path not in ("", "/", "/0"):
        raise ValueError("must have no path, because a Cluster has only database 0")
    login, hosts = _parse_netloc(parts.netloc, "cluster")
    return RedisUrl("cluster", f"{scheme}://{login}node{_query(parts.options)}", hosts)


def _parse_netloc(netloc: str, kind: Kind) -> tuple[str, tuple[Host, ...]]:
    """Return the login, including its `@`, and the hosts."""
    login, at, hosts = netloc.rpartition("@")
    return login + at, tuple(_parse_host(host, kind) for host in hosts.split(","))


def _parse_host(text: str, kind: Kind) -> Host:
    match = _HOST.fullmatch(text)
    if not match:
        raise ValueError("must list hosts as host:port,host:port")
    return match[1].strip("[]"), int(match[2] or _DEFAULT_PORTS[kind])


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
