"""What an answer tells of limits: the fields of draft-ietf-httpapi-ratelimit-headers."""

from collections.abc import Mapping

from aiohttp import web

from service.limits.limit import Standing


class Told:
    """How every limit stands that a request was counted against; those that had no more room among them."""

    def __init__(self) -> None:
        self._standings: list[Standing] = []

    def add(self, standing: Standing) -> None:
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


TOLD = web.RequestKey("told", Told)
"""Where a request that is limited has it; nowhere, where limits are off."""
