"""A look at what a server is: one that was demoted may go on answering, and what it says grows stale."""

from typing import Any

from redis.exceptions import ResponseError

from service.redis_client.connection import packed
from service.redis_client.errors import ServerDemoted


class RoleCheck:
    """An exchange (see connection.Exchange) that ends its connection where the server is no primary any more."""

    deadline = float("inf")

    def __init__(self) -> None:
        self.replies: list[Any] = []

    def pack(self) -> tuple[bytes, int]:
        return packed([("ROLE",)]), 1

    def settle(self) -> None:
        """Raises ServerDemoted. An account that may not ask is none the wiser."""
        (role,) = self.replies
        if not isinstance(role, ResponseError) and role[0] != b"master":
            raise ServerDemoted("the server is a primary no more")

    def fail(self, error: Exception) -> None:
        """Whoever is behind it on the connection is told."""
