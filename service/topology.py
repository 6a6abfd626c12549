"""Which server of a Redis Cluster holds which slot, as the cluster itself says through redis-py."""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress

from redis.asyncio import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisClusterException, RedisError

from service.errors import StoreUnavailable
from service.redis_url import Host
from service.store_watch import Trouble

_PAUSE_SECONDS = 0.1
"""At least so long lies between two askings, however many want them."""


class Topology:
    """Learns where slots are when it is first asked, and again when told that something moved or does not answer.

    `hosts` are asked too when none of the servers known last answers any more.
    """

    def __init__(self, client: RedisCluster, hosts: Sequence[Host], timeout_seconds: float) -> None:
        self._client = client
        self._nodes = client.nodes_manager
        self._hosts = hosts
        self._timeout_seconds = timeout_seconds
        self._places: dict[int, Host] = {}
        self._learning: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._silence = Trouble("no server of the cluster says where its slots are", "the cluster says where they are")

    async def host_of(self, slot: int) -> Host:
        """The primary that holds a slot. Raises StoreUnavailable where none does, or none can be asked."""
        if not self._places:
            await self.learnt()
        try:
            return self._places[slot]
        except KeyError:
            self.learn()
            raise StoreUnavailable(f"no server of the cluster holds slot {slot}") from None

    async def hosts(self) -> list[Host]:
        """Every primary that holds slots. Raises StoreUnavailable where none can be asked."""
        if not self._places:
            await self.learnt()
        return list(self.known)

    @property
    def known(self) -> AbstractSet[Host]:
        """Every primary that is known to hold slots, in no order that means anything."""
        return dict.fromkeys(self._places.values()).keys()

    def moved(self, slot: int, host: Host) -> None:
        """Told by a server that a slot is at another; more may have moved with it."""
        self._places[slot] = host
        self.learn()

    def learn(self) -> "asyncio.Task[None]":
        """Ask the cluster anew, beside what goes on; one asking serves all who want it."""
        if self._learning is None:
            self._learning = asyncio.get_running_loop().create_task(self._learn_in_peace())
        return self._learning

    async def learnt(self) -> None:
        """The same, awaited. Raises StoreUnavailable where nobody could be asked."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                await asyncio.shield(self.learn())
        if not self._places:
            raise StoreUnavailable("no server of the cluster says where the slots are")

    def like(self, host: Host) -> AbstractConnection:
        """A connection of redis-py's to a server, not opened."""
        options = dict(self._client.connection_kwargs)
        make = options.pop("connection_class")
        for of_the_node in ("max_connections", "response_callbacks"):
            options.pop(of_the_node)
        connection: AbstractConnection = make(host=host[0], port=host[1], **options)
        return connection

    async def aclose(self) -> None:
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait([self._learning])
        await self._client.aclose()
        await self._nodes.aclose("startup_nodes")

    async def _learn_in_peace(self) -> None:
        """Trouble is only told of: what is known stays known."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._not_before - loop.time(), 0))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._nodes.initialize(list(self._hosts))
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            self._silence.begins(error)
        else:
            self._silence.is_over()
            slots = self._nodes.slots_cache.items()
            self._places = {slot: (primary.host, int(primary.port)) for slot, (primary, *_) in slots}
        finally:  # also where redis-py stumbles over what a server says: the next asking may be of another one
            self._not_before = loop.time() + _PAUSE_SECONDS
            self._learning = None
