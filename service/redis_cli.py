"""The lines of redis-cli that look into the same Redis; a password stays out of them."""

import shlex

from redis.asyncio.connection import parse_url


def redis_cli(url: str, *command: str) -> str:
    """The line that carries out `command` at this URL; without one, it opens a prompt there."""
    named = parse_url(url)
    if "path" in named:
        words = ["redis-cli", "-s", named["path"]]
    else:
        words = ["redis-cli", "-h", named.get("host", "localhost"), "-p", str(named.get("port", 6379))]
    if url.startswith("rediss"):
        words.append("--tls")
    if named.get("username"):
        words += ["--user", named["username"]]
    if named.get("db"):
        words += ["-n", str(named["db"])]
    return shlex.join([*words, *command])


def summed_over_shards(url: str, command: str, key: str, *arguments: str) -> str:
    """The line that adds up what `command` answers in all shards; in `key` a blank stands for the shard."""
    key = key.replace("\\", "\\\\").replace("%", "%%").replace("{ }", "{%02x}")
    asked = shlex.quote(" ".join([command, key, *arguments]) + "\\n")
    return f"printf {asked} $(seq 0 255) | {redis_cli(url)} | awk '{{ n += $1 }} END {{ print n }}'"
