"""A Redis client for a cluster: one pipeline per node, and each command to the node that holds its key.

A redirected command was not executed, so sending it to another node executes it once. An unavailable node affects only
the keys that it holds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from service.errors import StoreUnavailable
from service.redis_client.batch import Replication
from service.redis_client.client import Fields, Read, Reply, replies_or_errors
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

_REDIRECT_PAUSE_SECONDS = 0.02
_ASKING: Command = ("ASKING",)

_Send = Callable[[Pipeline, Sequence[Command]], Awaitable[list[Reply]]]


class _Outcome(NamedTuple):
    """Replies by the index of their command, and the commands that were redirected."""

    replies: dict[int, Reply]
    redirected: list[RoutedCommand]


class ClusterClient:
    """A RedisClient for all primaries of a cluster. A redirected call may take twice `timeout_seconds`."""

    def __init__(
        self,
        topology: Topology,
        connector_for: Callable[[Host], Connector],
        timeout_seconds: float,
        monitor: StoreMonitor,
        scripts: ScriptCatalog,
        replication: Replication | None = None,
    ) -> None:
        self._topology = topology
        self._connector_for = connector_for
        self._timeout_seconds = timeout_seconds
        self._monitor = monitor
        self._rejections = monitor.rejections
        self._scripts = scripts
        self._replication = replication
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
            self._topology.refresh()
            raise

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        commands: list[Command] = []
        for key in keys:
            commands += [("HMGET", key, *fields), ("TIME",)]
        replies = iter(await self.query(*commands))
        return [(values, ms_from_time_reply(now)) for values, now in zip(replies, replies, strict=True)]

    async def query(self, *commands: Command) -> list[Reply]:
        return await self._send_with_retries(Pipeline.send_read, commands)

    async def execute(self, *commands: Command) -> list[Reply]:
        return await (self._execute_on_one_node(commands) if len(commands) == 1 else self._execute(commands))

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        replies: list[Reply] = []
        for group in ordered_groups(commands):
            replies += await self._execute_on_one_node(group)
        return replies

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        try:
            hosts = await self._topology.hosts()
        except StoreUnavailable:
            return {}
        calls = [replies_or_errors(self._pipeline(host).send_read(commands), len(commands)) for host in hosts]
        replies = await asyncio.gather(*calls)
        return {f"{name}:{port}": found for (name, port), found in zip(hosts, replies, strict=True)}

    async def aclose(self) -> None:
        for pipeline in self._pipelines.values():
            await pipeline.aclose()

    async def _execute_on_one_node(self, commands: Sequence[Command]) -> list[Reply]:
        """Execute commands of one slot, at most one of which writes, in one round trip.

        After a redirection or a missing script, sends all of them again through `_execute`.
        """
        pipeline = self._pipeline(await self._topology.host_of(slot_of(key_of(commands[0]))))
        try:
            replies = await pipeline.send(commands)
        except StoreUnavailable as error:
            self._record(error)
            raise
        match next((reply for reply in replies if isinstance(reply, ResponseError)), None):
            case None:
                self._rejections.record_success()
                return replies
            case reply if isinstance(reply, NoScriptError) or is_redirection(reply):
                return await self._execute(commands)
            case reply:
                raise self._record(to_client_error(reply))

    async def _execute(self, commands: Sequence[Command]) -> list[Reply]:
        replies = await self._send_with_retries(Pipeline.send, commands)
        self._rejections.record_success()
        return replies

    async def _send_with_retries(self, send: _Send, commands: Sequence[Command]) -> list[Reply]:
        async def send_to_nodes(commands: Sequence[Command]) -> list[Reply]:
            return await self._send_to_nodes(send, commands)

        try:
            return await send_with_script_retry(send_to_nodes, commands, self._scripts)
        except StoreUnavailable as error:
            self._record(error)
            raise

    def _record(self, error: Exception) -> Exception:
        self._topology.refresh()
        return self._rejections.record_failure(error) if isinstance(error, CommandRejected) else error

    async def _send_to_nodes(self, send: _Send, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies, errors included. Follows redirections."""
        replies, away = await self._send_routed(send, commands, route_commands(commands))
        if away:
            replies |= await self._follow_redirections(send, commands, away)
        return [replies[index] for index in range(len(commands))]

    async def _follow_redirections(
        self, send: _Send, commands: Sequence[Command], away: list[RoutedCommand]
    ) -> dict[int, Reply]:
        replies: dict[int, Reply] = {}
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for pause in chain([0], repeat(_REDIRECT_PAUSE_SECONDS)):
                    await asyncio.sleep(pause)
                    found, away = await self._send_routed(send, commands, away)
                    replies |= found
                    if not away:
                        break
        except TimeoutError:
            raise StoreUnavailable(f"the cluster kept redirecting for {self._timeout_seconds:g} s") from None
        return replies

    async def _send_routed(self, send: _Send, commands: Sequence[Command], routed: list[RoutedCommand]) -> _Outcome:
        """Send commands to their nodes, with one round trip per node."""
        hosts = [command.host or await self._topology.host_of(command.slot) for command in routed]
        outcomes = await _run_all(
            [
                self._send_to_node(send, commands, host, is_asking, group)
                for (host, is_asking), group in group_by_node(routed, hosts).items()
            ]
        )
        replies = {index: reply for outcome in outcomes for index, reply in outcome.replies.items()}
        return _Outcome(replies, [command for outcome in outcomes for command in outcome.redirected])

    async def _send_to_node(
        self, send: _Send, commands: Sequence[Command], host: Host, is_asking: bool, routed: list[RoutedCommand]
    ) -> _Outcome:
        indexes = [index for command in routed for index in command.indexes]
        to_send = [commands[index] for index in indexes]
        if is_asking:  # ASKING applies to the next command only
            to_send = [sent for command in to_send for sent in (_ASKING, command)]
        found = await send(self._pipeline(host), to_send)
        replies = dict(zip(indexes, found[1::2] if is_asking else found, strict=True))
        away = [target for command in routed if (target := redirected(command, replies, host)) is not None]
        for target in away:
            if target.host is not None and not target.is_asking:
                self._topology.move(target.slot, target.host)
        return _Outcome(replies, away)

    def _pipeline(self, host: Host) -> Pipeline:
        pipeline = self._pipelines.get(host)
        if pipeline is None:
            self._retire_former_nodes()
            pipeline = self._pipelines[host] = self._new_pipeline(host)
        return pipeline

    def _retire_former_nodes(self) -> None:
        """Close connections to nodes that no longer hold slots, after their last reply in flight."""
        for host in self._pipelines.keys() - self._topology.known:
            self._pipelines.pop(host).retire()

    def _new_pipeline(self, host: Host) -> Pipeline:
        monitor = self._monitor.for_node(f"{host[0]}:{host[1]}")
        return Pipeline(self._connector_for(host), self._timeout_seconds, monitor, self._scripts, self._replication)


async def _run_all(calls: Sequence[Coroutine[Any, Any, _Outcome]]) -> list[_Outcome]:
    """Run calls concurrently. Saves creating a task for a single one, the usual case."""
    return [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)
