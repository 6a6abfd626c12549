"""A Redis Cluster for tests: three primaries, and optionally one replica for each.

All of them are local processes with short timeouts: a failover takes one or two seconds.

    cluster = ClusterServers(folder, replicas=True)
    cluster.start()
    slot = cluster.slot_of("session:{ab}:1")
    with cluster.migrating(slot, to=cluster.primaries[0]) as migration:
        migration.move(1)                  # one key has moved, the others have not: ASK and TRYAGAIN
        migration.move_rest()
    cluster.owner_of(slot).kill()
    cluster.wait_until_served(slot)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from tests.redis_server import ADMIN, Login, RedisServer, acl_of, free_port, wait_until

SLOTS = 16384
NODE_TIMEOUT_MS = 1000

_SLOT_RANGES = ((0, 5460), (5461, 10922), (10923, SLOTS - 1))
_MIGRATE_TIMEOUT_MS = 2000


class Logins(NamedTuple):
    """The only users that may log in."""

    service: Login = Login("service", "of-the-service")
    admin: Login = Login("admin", "of-the-admin")


class ClusterServers:
    """Three primaries, and three replicas with `replicas`, with their files in `folder`. Its path must be short.

    Data survives a restart. `settings` are options of the servers. With `logins`, connections must authenticate;
    otherwise the default user has the permissions of the service. Full slot coverage is not required: if a primary is
    down, only its slots are unavailable.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicas: bool = False,
        settings: Mapping[str, str] | None = None,
        logins: Logins | None = None,
    ) -> None:
        self._folder = folder
        self._settings = settings or {}
        self._logins = logins
        self.servers = [self._node(number) for number in range(6 if replicas else 3)]

    @property
    def url(self) -> str:
        """The value of REDIS_URL."""
        login = self._logins.service if self._logins else ""
        return f"redis+cluster://{login}{','.join(f'127.0.0.1:{node.port}' for node in self.servers)}"

    @property
    def primaries(self) -> list["Node"]:
        """The running nodes that hold slots, in the order of their first slots."""
        return [node for node in (self._node_on(port) for _, _, port in self._slots()) if node.is_running]

    def start(self) -> None:
        for node in self.servers:
            node.start()
        for node, slots in zip(self.servers, _SLOT_RANGES, strict=False):
            node.command("CLUSTER", "ADDSLOTSRANGE", *slots)
        for epoch, node in enumerate(self.servers, 1):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            node.command("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port, self.servers[0].bus_port)
        wait_until(lambda: all(node.knows(len(self.servers)) for node in self.servers), "the nodes are connected")
        for replica, primary in zip(self.servers[3:], self.servers, strict=False):
            replica.command("CLUSTER", "REPLICATE", primary.id)
        self.wait_until_settled()

    def stop(self) -> None:
        for node in self.servers:
            node.stop()

    def slot_of(self, key: str) -> int:
        return int(cast(int, self._running_node().command("CLUSTER", "KEYSLOT", key)))

    def owner_of(self, slot: int) -> "Node":
        """The primary of a slot according to the first running node."""
        port = next(port for first, last, port in self._slots() if first <= slot <= last)
        return self._node_on(port)

    def owner_of_key(self, key: str) -> "Node":
        return self.owner_of(self.slot_of(key))

    def restore(self) -> None:
        """Resume or restart all nodes, wait until the cluster is settled, and delete all keys."""
        for node in self.servers:
            node.resume() if node.is_running else node.start()
        self.wait_until_settled()
        for node in self.primaries:
            node.command("FLUSHALL")

    def slots_of(self, primary: "Node") -> set[int]:
        """The slots of a primary according to the first running node."""
        served = [range(first, last + 1) for first, last, port in self._slots() if port == primary.port]
        return {slot for slots in served for slot in slots}

    def replica_of(self, primary: "Node") -> "Node":
        return next(node for node in self.servers if node.is_running and node.follows(primary))

    def wait_until_settled(self) -> None:
        """Wait until every running node sees all slots served, and every replica is connected to its primary."""
        wait_until(lambda: all(node.is_settled() for node in self.servers if node.is_running), "the cluster is settled")

    def wait_until_served(self, slot: int) -> "Node":
        """Wait until all running nodes agree on the slot's primary, and it is running."""
        wait_until(lambda: self._is_served(slot), f"slot {slot} is served")
        return self.owner_of(slot)

    def wait_until_down(self, lost: "Node") -> None:
        """Wait until all running nodes have marked a killed node as failed."""
        wait_until(
            lambda: all(node.considers_failed(lost) for node in self.servers if node.is_running),
            "it is taken for failed",
        )

    def fail_over(self, primary: "Node") -> "Node":
        """Request a failover to the primary's replica, and wait until it is complete."""
        replica = self.replica_of(primary)
        slot = next(first for first, _, port in self._slots() if port == primary.port)
        replica.command("CLUSTER", "FAILOVER")
        wait_until(lambda: self.wait_until_served(slot) is replica, "the replica is the primary")
        return replica

    @contextmanager
    def migrating(self, slot: int, *, to: "Node") -> Iterator["Migration"]:
        """Move a slot step by step, as redis-cli does. The slot belongs to the other node when the context ends."""
        migration = Migration(slot, self.owner_of(slot), to, self._logins.admin if self._logins else ADMIN)
        migration.begin()
        yield migration
        migration.end([node for node in self.servers if node.is_running])
        self.wait_until_served(slot)

    def _is_served(self, slot: int) -> bool:
        running = [node for node in self.servers if node.is_running]
        owners = {node.owner_of(slot) for node in running}
        return len(owners) == 1 and any(node.id in owners and node.is_settled() for node in running)

    def _slots(self) -> list[tuple[int, int, int]]:
        """The first slot, the last slot and the primary's port of every range."""
        ranges = cast(list[Any], self._running_node().command("CLUSTER", "SLOTS"))
        return sorted((first, last, primary[1]) for first, last, primary, *_ in ranges)

    def _running_node(self) -> "Node":
        return next(node for node in self.servers if node.is_running)

    def _node_on(self, port: int) -> "Node":
        return next(node for node in self.servers if node.port == port)

    def _node(self, number: int) -> "Node":
        folder = self._folder / f"c{number}"
        folder.mkdir()
        admin = self._logins.admin if self._logins else ADMIN
        settings = {"masteruser": admin.user, "masterauth": admin.password, **self._settings}
        if self._logins:
            settings["aclfile"] = str(folder / "users.acl")
            (folder / "users.acl").write_text(acl_of(self._logins))
        return Node(folder, settings, self._logins.admin if self._logins else None)


class Node(RedisServer):
    """One node of the cluster."""

    def __init__(self, folder: Path, settings: Mapping[str, str], login: Login | None) -> None:
        self.bus_port = free_port()
        own = {
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
            "repl-diskless-sync-delay": "0",
        }
        super().__init__(folder, append_only=True, port=free_port(), settings={**own, **settings}, login=login)

    @property
    def id(self) -> str:
        return cast(bytes, self.command("CLUSTER", "MYID")).decode()

    def knows(self, number: int) -> bool:
        """Whether the node is connected to this many nodes, including itself."""
        return [seen.is_linked for seen in self._seen_nodes()] == [True] * number

    def owner_of(self, slot: int) -> str | None:
        """The id of the slot's primary according to this node."""
        return next((seen.id for seen in self._seen_nodes() if seen.serves(slot)), None)

    def is_settled(self) -> bool:
        """Whether the node sees all slots served and, if it is a replica, is connected to its primary."""
        state, role = cast(bytes, self.command("CLUSTER", "INFO")), cast(list[object], self.command("ROLE"))
        return b"cluster_state:ok" in state and (role[0] == b"master" or role[3] == b"connected")

    @property
    def is_primary(self) -> bool:
        return cast(list[object], self.command("ROLE"))[0] == b"master"

    def follows(self, primary: "Node") -> bool:
        role = cast(list[object], self.command("ROLE"))
        return role[0] == b"slave" and role[2] == primary.port

    def considers_failed(self, lost: "Node") -> bool:
        return any(seen.port == lost.port and "fail" in seen.flags for seen in self._seen_nodes())

    def _seen_nodes(self) -> list["SeenNode"]:
        return [SeenNode.read(line) for line in cast(bytes, self.command("CLUSTER", "NODES")).decode().splitlines()]


class SeenNode(NamedTuple):
    """A line of CLUSTER NODES: a node as another node sees it."""

    id: str
    port: int
    flags: list[str]
    is_linked: bool
    slots: list[tuple[int, int]]

    @classmethod
    def read(cls, line: str) -> "SeenNode":
        node_id, address, flags, _, _, _, _, link, *slots_held = line.split()
        ranges = [held.partition("-") for held in slots_held if not held.startswith("[")]
        slots = [(int(first), int(last or first)) for first, _, last in ranges]
        port = int(address.partition("@")[0].rpartition(":")[2])
        return cls(node_id, port, flags.split(","), link == "connected" and "handshake" not in flags, slots)

    def serves(self, slot: int) -> bool:
        return "fail" not in self.flags and any(first <= slot <= last for first, last in self.slots)


class Migration:
    """The move of a slot from one node to another."""

    def __init__(self, slot: int, source: Node, target: Node, login: Login) -> None:
        self._slot = slot
        self._source = source
        self._target = target
        self._auth = ("AUTH2", *login)

    def begin(self) -> None:
        """Mark the slot as migrating. The source now replies with ASK for keys that it no longer holds."""
        self._target.command("CLUSTER", "SETSLOT", self._slot, "IMPORTING", self._source.id)
        self._source.command("CLUSTER", "SETSLOT", self._slot, "MIGRATING", self._target.id)

    def move(self, keys: int) -> int:
        """Move at most this many keys, and return how many were moved."""
        names = cast(list[bytes], self._source.command("CLUSTER", "GETKEYSINSLOT", self._slot, keys))
        self._move(*names)
        return len(names)

    def move_key(self, name: str) -> None:
        self._move(name.encode())

    def move_rest(self) -> None:
        while self.move(100):
            continue

    def end(self, nodes: Sequence[Node]) -> None:
        """Move the remaining keys, and assign the slot to the target on all primaries."""
        self.move_rest()
        others = [node for node in nodes if node not in (self._source, self._target)]
        for node in (self._target, self._source, *(node for node in others if node.is_primary)):
            node.command("CLUSTER", "SETSLOT", self._slot, "NODE", self._target.id)

    def _move(self, *names: bytes) -> None:
        if names:
            address = ("127.0.0.1", self._target.port, "", 0, _MIGRATE_TIMEOUT_MS)
            self._source.command("MIGRATE", *address, *self._auth, "KEYS", *names)
