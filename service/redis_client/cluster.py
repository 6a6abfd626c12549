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
from service.redis_client.batch import Replication
from service.redis_client.client import Fields, Read, Reply, reply_or_error_each
from service.redis_client.cluster_routing import (
    RoutedCommand,
    Topology,
    group_by_node,
    key_of,
    ordered_groups,
    redirected,
    route_commands,
    slot_of,
)
from service.redis_client.connector import Connector
from service.redis_client.errors import CommandRejected, Redirected, is_redirection, to_client_error
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Pipeline
from service.redis_client.script_retry import send_with_script_retry
from service.redis_client.scripts import Command, ScriptCatalog
from service.settings.redis_url import Host
from service.timestamps import ms_from_time_reply

_TRY_AGAIN_SECONDS = 0.02
_ASKING: Command = ("ASKING",)

_Send = Callable[[Pipeline, Sequence[Command]], Awaitable[list[Reply]]]


class _Outcome(NamedTuple):
    """Replies by the places of their commands, and what has to go on elsewhere."""

    replies: dict[int, Reply]
    away: list[RoutedCommand]


class ClusterClient:
    """A way to every server of a cluster. A call that is redirected may take twice `timeout_seconds`."""

    def __init__(
        self,
        topology: Topology,
        dialer_to: Callable[[Host], Connector],
        timeout_seconds: float,
        watch: StoreMonitor,
        scripts: ScriptCatalog,
        replication: Replication | None = None,
    ) -> None:
        self._topology = topology
        self._dialer_to = dialer_to
        self._timeout_seconds = timeout_seconds
        self._scripts = scripts
        self._replication = replication
        self._watch = watch
        self._refusals = watch.rejections
        self._pipelines: dict[Host, Pipeline] = {}

    @property
    def supports_multi_slot(self) -> bool:
        return False

    async def read_hash(self, key: str, fields: Fields) -> Read:
        pipeline = self._pipeline(await self._topology.host_of(slot_of(key)))
        try:
            return await pipeline.read_hash(key, fields)
        except Redirected:
            ((values, now_ms),) = await self.read_hashes([key], fields)
            return values, now_ms
        except StoreUnavailable:
            self._topology.learn()
            raise

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        looks: list[Command] = []
        for key in keys:
            looks += [("HMGET", key, *fields), ("TIME",)]
        replies = iter(await self.query(*looks))
        return [(values, ms_from_time_reply(now)) for values, now in zip(replies, replies, strict=True)]

    async def query(self, *commands: Command) -> list[Reply]:
        return await self._carried_out(Pipeline.send_to_read, commands)

    async def execute(self, *commands: Command) -> list[Reply]:
        return await (self._turn(commands) if len(commands) == 1 else self._changed(commands))

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        replies: list[Reply] = []
        for turn in ordered_groups(commands):
            replies += await self._turn(turn)
        return replies

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        try:
            hosts = await self._topology.hosts()
        except StoreUnavailable:
            return {}
        asking = [reply_or_error_each(self._pipeline(host).send_to_read(commands), len(commands)) for host in hosts]
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
                self._refusals.record_success()
                return replies
            case fault if isinstance(fault, NoScriptError) or is_redirection(fault):
                return await self._changed(commands)
            case fault:
                raise self._told(to_client_error(fault))

    async def _changed(self, commands: Sequence[Command]) -> list[Reply]:
        replies = await self._carried_out(Pipeline.send, commands)
        self._refusals.record_success()
        return replies

    async def _carried_out(self, send: _Send, commands: Sequence[Command]) -> list[Reply]:
        async def sent(commands: Sequence[Command]) -> list[Reply]:
            return await self._delivered(send, commands)

        try:
            return await send_with_script_retry(sent, commands, self._scripts)
        except StoreUnavailable as error:
            self._told(error)
            raise

    def _told(self, error: Exception) -> Exception:
        """The same, once it is in the log if it is a refusal of Redis's; where slots are is asked anew."""
        self._topology.learn()
        return self._refusals.record_failure(error) if isinstance(error, CommandRejected) else error

    async def _delivered(self, send: _Send, commands: Sequence[Command]) -> list[Reply]:
        """The replies, errors among them; redirections have been followed."""
        replies, away = await self._trips(send, commands, route_commands(commands))
        if away:
            replies |= await self._followed(send, commands, away)
        return [replies[place] for place in range(len(commands))]

    async def _followed(self, send: _Send, commands: Sequence[Command], away: list[RoutedCommand]) -> dict[int, Reply]:
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

    async def _trips(self, send: _Send, commands: Sequence[Command], routed_commands: list[RoutedCommand]) -> _Outcome:
        """Do the errands, those of one server in one round trip."""
        hosts = [routed.host or await self._topology.host_of(routed.slot) for routed in routed_commands]
        trips = group_by_node(routed_commands, hosts)
        outcomes = await _all(
            [self._trip(send, commands, *trip, routed_commands) for trip, routed_commands in trips.items()]
        )
        replies = {place: reply for outcome in outcomes for place, reply in outcome.replies.items()}
        return _Outcome(replies, [routed for outcome in outcomes for routed in outcome.away])

    async def _trip(
        self, send: _Send, commands: Sequence[Command], host: Host, asking: bool, routed_commands: list[RoutedCommand]
    ) -> _Outcome:
        places = [place for routed in routed_commands for place in routed.places]
        said = [commands[place] for place in places]
        if asking:  # it holds for the one command behind it
            said = [word for command in said for word in (_ASKING, command)]
        found = await send(self._pipeline(host), said)
        replies = dict(zip(places, found[1::2] if asking else found, strict=True))
        away = [onwards for routed in routed_commands if (onwards := redirected(routed, replies, host)) is not None]
        for routed in away:
            if routed.host is not None and not routed.asking:
                self._topology.moved(routed.slot, routed.host)
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
        watch = self._watch.for_node(f"server {host[0]}:{host[1]}")
        return Pipeline(self._dialer_to(host), self._timeout_seconds, watch, self._scripts, self._replication)


async def _all(trips: Sequence[Coroutine[Any, Any, _Outcome]]) -> list[_Outcome]:
    """Most calls are one trip, which needs no task of its own."""
    return [await trips[0]] if len(trips) == 1 else await asyncio.gather(*trips)
