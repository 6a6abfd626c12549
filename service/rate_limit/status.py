"""What an answer tells of limits: the fields of draft-ietf-httpapi-ratelimit-headers."""

from collections.abc import Mapping

from aiohttp import web

from service.rate_limit.limit import LimitState


class RateLimitStatus:
    """How every limit stands that a request was counted against; those that had no more room among them."""

    def __init__(self) -> None:
        self._standings: list[LimitState] = []

    def add(self, standing: LimitState) -> None:
        self._standings.append(standing)

    def fields(self) -> Mapping[str, str]:
        """Headers, if there is something to tell."""
        standings = self._standings
        if not standings:
            return {}
        return {
            "RateLimit-Policy": ", ".join([standing.limit.policy for standing in standings]),
            "RateLimit": ", ".join(map(str, standings)),
        }


RATE_LIMIT_STATUS = web.RequestKey("told", RateLimitStatus)
"""Where a request that is limited has it; nowhere, where limits are off."""
