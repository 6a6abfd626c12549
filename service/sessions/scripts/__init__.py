"""The Lua scripts of sessions: one file per script, beside this one.

A script's binding block (`name = KEYS[n]`, `name = ARGV[n]`) is its signature (see service.redis_client.scripts).
"""

import re
from importlib import resources

from service.redis_client.scripts import Script, ScriptCatalog

_HMGET = re.compile(r"redis\.call\('HMGET', keys\.session,([^)]*)\)")
_LISTS = re.compile(r"\badd_to_owner_index\(")
_OF_A_SESSION = re.compile(r"^\s*session\s*= KEYS\[", re.MULTILINE)


def load(name: str) -> Script:
    """Load a script with clock.lua and the other shared files that it uses. Redis runs the whole text each time."""
    own = _file(name)
    shared = [*(["prelude"] if _OF_A_SESSION.search(own) else []), *(["owner_index"] if _LISTS.search(own) else [])]
    return Script.parse(name, "\n".join([*map(_file, ["clock", *shared]), own]))


def _file(name: str) -> str:
    return (resources.files(__package__) / f"{name}.lua").read_text()


FIELDS = tuple(name.encode() for name in re.findall(r"'(\w+)'", _HMGET.findall(_file("prelude"))[0]))
"""The fields of a session's hash, in the order of their values in the scripts' answers: as the prelude reads them."""

CREATE_WITH_RECORD = load("create")
CREATE = CREATE_WITH_RECORD.without("record", "fingerprint", "record_lifetime_ms")
ADD_TO_INDEX = load("add_to_index")
HEARTBEAT = load("heartbeat")
RENEW = load("renew")
UPDATE_TIMEOUT = load("update_timeout")
UPDATE_METADATA = load("update_metadata")
DELETE_WITH_RECORD = load("delete")
DELETE = DELETE_WITH_RECORD.without("record")
SWEEP = load("sweep")
LIST = load("list")
COUNT = load("count")
REVOKE = load("revoke")
PUT_POLICY = load("put_policy")
MARK_LOST = load("mark_lost")
EXPIRED = load("expired")
STATUS = load("status")
REMOVE_FROM_INDEX = load("remove_from_index")
RATE_LIMIT = load("rate_limit")
ADD_WITHIN_CAPS = load("add_within_caps")
EVICT = load("evict")
AWAIT_REPLICATION = load("await_replication")

SCRIPTS = ScriptCatalog(
    (
        CREATE,
        ADD_TO_INDEX,
        HEARTBEAT,
        RENEW,
        UPDATE_TIMEOUT,
        UPDATE_METADATA,
        DELETE,
        SWEEP,
        LIST,
        COUNT,
        REVOKE,
        PUT_POLICY,
        MARK_LOST,
        EXPIRED,
        STATUS,
        REMOVE_FROM_INDEX,
        RATE_LIMIT,
        ADD_WITHIN_CAPS,
        EVICT,
        AWAIT_REPLICATION,
    ),
    no_write_statuses=(
        b"missing",
        b"lost",
        b"expired",
        b"taken",
        b"already_created",
        b"at_maximum",
        b"in_the_past",
        b"changed",
        b"other_revision",
        b"other_owner",
        b"active",
        b"full",
    ),
)
"""Every script, for the Redis client."""
