"""Run the `redis-cli` commands of documents on a server, without redis-cli."""

import re
import shlex
from typing import Any, NamedTuple

import redis


class RedisCommand(NamedTuple):
    """A `redis-cli` command, and the patterns of a `grep` behind it."""

    options: str
    words: list[str]
    patterns: list[str]

    @classmethod
    def parse(cls, line: str) -> "RedisCommand":
        command, _, grep = line.partition(" | grep ")
        found = re.fullmatch(r"redis-cli ((?:-c|-[hp] \S+)?) ?(.+?)(?: +#.*)?", command)
        assert found, line
        pattern = shlex.split(grep, comments=True)[-1:] or [""]
        return cls(found[1], shlex.split(found[2]), pattern[0].split("|"))

    def run_on(self, url: str) -> Any:
        """Return the unparsed reply. Raise redis.ResponseError if it is an error."""
        with redis.Redis.from_url(url, decode_responses=True) as client:
            client.response_callbacks.clear()
            return client.execute_command(*self.words)

    def check_on(self, url: str) -> None:
        """Fail if the reply is an error, or does not contain every pattern."""
        reply = str(self.run_on(url))

        assert [pattern for pattern in self.patterns if not re.search(pattern, reply, re.MULTILINE)] == []


def redis_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("redis-cli ")]
