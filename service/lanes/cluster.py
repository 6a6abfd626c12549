"""A lane over a Redis Cluster: a pipeline to each server, and each command to the one that holds its key.

Where a server sends a command elsewhere it has not been carried out, so following it does nothing twice. A server that
does not answer costs only what lies on it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from service.errors import StoreUnavailable
from service.instants import instant_of
from service.lanes.batch import Replication
from service.lanes.dial import Dialer
from service.lanes.errands import Errand, by_trip, errands_of, in_turn, key_of, sent_on, slot_of
from service.lanes.lane import (
    Fields,
    Read,
    Redirected,
    Reply,
    StoreRefused,
    carried_out,
    each_answered,
    is_redirection,
    named,
)
from service.lanes.pipeline import Pipeline
from service.lanes.redis_url import Host
from service.lanes.store_watch import StoreWatch
from service.lanes.topology import Topology
from service.life.scripts import Command

_TRY_AGAIN_SECONDS = 0.02
_ASKING: Command = ("ASKING",)

_Send = Callable[[Pipeline, Sequence[Command]], Awaitable[list[Reply]]]


class _Outcome(NamedTuple):
    """Replies by the places of their commands, and what has to go on elsewhere."""

    replies: dict[int, Reply]
    away: list[Errand]


class ClusterLane:
    """A way to every server of a cluster. A call that is redirected may take twice `timeout_seconds`."""

    def __init__(
        self,
        topology: Topology,
        dialer_to: Callable[[Host], Dialer],
        timeout_seconds: float,
        watch: StoreWatch,
        replication: Replication | None = None,
    ) -> None:
        self._topology = topology
        self._dialer_to = dialer_to
        self._timeout_seconds = timeout_seconds
        self._replication = replication
        self._watch = watch
        self._refusals = watch.refusals
        self._pipelines: dict[Host, Pipeline] = {}

    @property
    def spans_slots(self) -> bool:
        return False

    async def read(self, key: str, fields: Fields) -> Read:
        pipeline = self._pipeline(await self._topology.host_of(slot_of(key)))
        try:
            return await pipeline.read(key, fields)
        except Redirected:
            ((values, now_ms),) = await self.reads([key], fields)
            return values, now_ms
        except StoreUnavailable:
            self._topology.learn()
            raise

    async def reads(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        looks: list[Command] = []
        for key in keys:
            looks += [("HMGET", key, *fields), ("TIME",)]
        replies = iter(await self.ask(*looks))
        return [(values, instant_of(now)) for values, now in zip(replies, replies, strict=True)]

    async def ask(self, *commands: Command) -> list[Reply]:
        return await self._carried_out(Pipeline.send_to_read, commands)

    async def change(self, *commands: Command) -> list[Reply]:
        return await (self._turn(commands) if len(commands) == 1 else self._changed(commands))

    async def in_order(self, *commands: Command) -> list[Reply]:
        replies: list[Reply] = []
        for turn in in_turn(commands):
            replies += await self._turn(turn)
        return replies

    async def everywhere(self, *commands: Command) -> dict[str, list[Reply]]:
        try:
            hosts = await self._topology.hosts()
        except StoreUnavailable:
            return {}
        asking = [each_answered(self._pipeline(host).send_to_read(commands), len(commands)) for host in hosts]
        return {
            f"{name}:{port}": found for (name, port), found in zip(hosts, await asyncio.gather(*asking), strict=True)
        }

    async def aclose(self) -> None:
        for pipeline in self._pipelines.values():
            await pipeline.aclose()

    async def _turn(self, commands: Sequence[Command]) -> list[Reply]:
        """One change at most, as a rule in one round trip; where it was not carried out it is gone about at length."""
        pipeline = self._pipeline(await self._topology.host_of(slot_of(key_of(commands[0]))))
        try:
            replies = await pipeline.send(commands)
        except StoreUnavailable as error:
            self._told(error)
            raise
        match next((reply for reply in replies if isinstance(reply, ResponseError)), None):
            case None:
                self._refusals.is_over()
                return replies
            case fault if isinstance(fault, NoScriptError) or is_redirection(fault):
                return await self._changed(commands)
            case fault:
                raise self._told(named(fault))

    async def _changed(self, commands: Sequence[Command]) -> list[Reply]:
        replies = await self._carried_out(Pipeline.send, commands)
        self._refusals.is_over()
        return replies

    async def _carried_out(self, send: _Send, commands: Sequence[Command]) -> list[Reply]:
        async def sent(commands: Sequence[Command]) -> list[Reply]:
            return await self._delivered(send, commands)

        try:
            return await carried_out(sent, commands)
        except StoreUnavailable as error:
            self._told(error)
            raise

    def _told(self, error: Exception) -> Exception:
        """The same, once it is in the log if it is a refusal of Redis's; where slots are is asked anew."""
        self._topology.learn()
        return self._refusals.begins(error) if isinstance(error, StoreRefused) else error

    async def _delivered(self, send: _Send, commands: Sequence[Command]) -> list[Reply]:
        """The replies, errors among them; redirections have been followed."""
        replies, away = await self._trips(send, commands, errands_of(commands))
        if away:
            replies |= await self._followed(send, commands, away)
        return [replies[place] for place in range(len(commands))]

    async def _followed(self, send: _Send, commands: Sequence[Command], away: list[Errand]) -> dict[int, Reply]:
        replies: dict[int, Reply] = {}
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for pause in chain([0], repeat(_TRY_AGAIN_SECONDS)):
                    await asyncio.sleep(pause)
                    found, away = await self._trips(send, commands, away)
                    replies |= found
                    if not away:
                        break
        except TimeoutError:
            raise StoreUnavailable("the cluster was moving what was asked for, and did not come to an end") from None
        return replies

    async def _trips(self, send: _Send, commands: Sequence[Command], errands: list[Errand]) -> _Outcome:
        """Do the errands, those of one server in one round trip."""
        hosts = [errand.host or await self._topology.host_of(errand.slot) for errand in errands]
        trips = by_trip(errands, hosts)
        outcomes = await _all([self._trip(send, commands, *trip, errands) for trip, errands in trips.items()])
        replies = {place: reply for outcome in outcomes for place, reply in outcome.replies.items()}
        return _Outcome(replies, [errand for outcome in outcomes for errand in outcome.away])

    async def _trip(
        self, send: _Send, commands: Sequence[Command], host: Host, asking: bool, errands: list[Errand]
    ) -> _Outcome:
        places = [place for errand in errands for place in errand.places]
        said = [commands[place] for place in places]
        if asking:  # it holds for the one command behind it
            said = [word for command in said for word in (_ASKING, command)]
        found = await send(self._pipeline(host), said)
        replies = dict(zip(places, found[1::2] if asking else found, strict=True))
        away = [onwards for errand in errands if (onwards := sent_on(errand, replies, host)) is not None]
        for errand in away:
            if errand.host is not None and not errand.asking:
                self._topology.moved(errand.slot, errand.host)
        return _Outcome(replies, away)

    def _pipeline(self, host: Host) -> Pipeline:
        found = self._pipelines.get(host)
        if found is None:
            self._leave_strangers()
            found = self._pipelines[host] = self._new_pipeline(host)
        return found

    def _leave_strangers(self) -> None:
        """Close the connections to servers that hold no slots any more; what is in flight there is answered."""
        for host in self._pipelines.keys() - self._topology.known:
            self._pipelines.pop(host).retire()

    def _new_pipeline(self, host: Host) -> Pipeline:
        watch = self._watch.at(f"server {host[0]}:{host[1]}")
        return Pipeline(self._dialer_to(host), self._timeout_seconds, watch, self._replication)


async def _all(trips: Sequence[Coroutine[Any, Any, _Outcome]]) -> list[_Outcome]:
    """Most calls are one trip, which needs no task of its own."""
    return [await trips[0]] if len(trips) == 1 else await asyncio.gather(*trips)
