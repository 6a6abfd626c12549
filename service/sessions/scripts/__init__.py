"""The Lua scripts of sessions: one file per script, beside this one.

A script's binding block (`name = KEYS[n]`, `name = ARGV[n]`) is its signature (see service.redis_client.scripts).
"""

import re
from importlib import resources

from service.redis_client.scripts import Script, ScriptCatalog

_FIELD_NAMES = re.compile(r"redis\.call\('HMGET', keys\.session,([^)]*)\)")
_TAKES_SESSION = re.compile(r"^\s*session\s*= KEYS\[", re.MULTILINE)
_TAKES_MESSAGES = re.compile(r"\b(?:find_user_message|new_message_id)\(")
_DELETES_WRONG_TYPE = re.compile(r"\bdelete_wrong_type\(")
_ADDS_TO_OWNER_INDEX = re.compile(r"\badd_to_owner_index\(")


def load(name: str) -> Script:
    """Load a script with clock.lua and the other shared files that it uses. Redis runs the whole text each time."""
    own = _read(name)
    shared = ["clock"]
    if _TAKES_SESSION.search(own):
        shared.append("prelude")
    if _DELETES_WRONG_TYPE.search(own):
        shared.append("wrong_type")
    if _TAKES_MESSAGES.search(own):
        shared.append("messages")
    if _ADDS_TO_OWNER_INDEX.search(own):
        shared.append("owner_index")
    return Script.parse(name, "\n".join([*map(_read, shared), own]))


def _read(name: str) -> str:
    return (resources.files(__package__) / f"{name}.lua").read_text()


FIELDS = tuple(name.encode() for name in re.findall(r"'(\w+)'", _FIELD_NAMES.findall(_read("prelude"))[0]))
"""The fields of a session's hash, in the order in which scripts reply with their values (see prelude.lua)."""

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
SEND_MESSAGE = load("send_message")
APPEND_CHUNK = load("append_chunk")
CANCEL_MESSAGE = load("cancel_message")
READ_MESSAGES = load("read_messages")
READ_DELIVERY = load("read_delivery")
LEASE_OUTBOX = load("lease_outbox")
ADD_TO_INBOX = load("add_to_inbox")
LEASE_DELIVERIES = load("lease_deliveries")
EXTEND_DELIVERIES = load("extend_deliveries")
LEASED_DELIVERIES = load("leased_deliveries")
COMPLETE_DELIVERIES = load("complete_deliveries")

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
        SEND_MESSAGE,
        APPEND_CHUNK,
        CANCEL_MESSAGE,
        READ_MESSAGES,
        READ_DELIVERY,
        LEASE_OUTBOX,
        ADD_TO_INBOX,
        LEASE_DELIVERIES,
        EXTEND_DELIVERIES,
        LEASED_DELIVERIES,
        COMPLETE_DELIVERIES,
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
        b"key_reused",
        b"other_author",
        b"not_agent",
        b"unknown_message",
        b"answered",
        b"gap",
        b"done",
    ),
)
"""Every script, for the Redis client."""
