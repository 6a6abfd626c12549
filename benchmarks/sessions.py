"""Create sessions for the benchmark: over HTTP, or in bulk with the service's scripts."""

import json
import urllib.request
import uuid

import redis

from benchmarks.load import Target
from service.redis_client.scripts import Argument, Command
from service.sessions import scripts
from service.sessions.keys import Keys, OwnerIndexKeys

SESSIONS = "/api/messaging/sessions"
AGENT = "3c90c3cc-0d44-4b50-8888-8dd25736052a"
RETENTION_MS = 86_400_000
OWNER_INDEX_LIFETIME_MS = 259_200_000

_TIMEOUTS: dict[str, Argument] = {
    "auto_renew": "true",
    "max_duration_minutes": "720",
    "warning_threshold_minutes": "5",
}
_SESSIONS_PER_ROUND_TRIP = 200
_KEYS = Keys("")


def new_session_body() -> str:
    return json.dumps({"agentId": AGENT, "userId": str(uuid.uuid4()), "metadata": {"channel": "web"}})


def create_session(url: str) -> str:
    """Create a session and return its id."""
    request = urllib.request.Request(
        url + SESSIONS, new_session_body().encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        session_id: str = json.load(response)["sessionId"]
    return session_id


def pages(url: str, number: int) -> list[str]:
    """The paths of the first pages of a list, with 100 sessions each."""
    paths = [SESSIONS]
    while len(paths) < number:
        with urllib.request.urlopen(url + paths[-1], timeout=10) as response:
            paths.append(f"{SESSIONS}?cursor={json.load(response)['nextCursor']}")
    return paths


def create_expired_session(url: str, client: "redis.Redis") -> str:
    """Create a session that has expired: only its tombstone is left. Returns its id."""
    session_id = create_session(url)
    client.delete(_KEYS.session(session_id))
    client.hset(_KEYS.tombstone(session_id), "expiresAt", "1705314600000")
    return session_id


def targets(url: str, client: "redis.Redis") -> dict[str, Target]:
    """The measured requests by name. Creation is the last one because it fills Redis."""
    live = f"{SESSIONS}/{create_session(url)}"
    return {
        "get 200": Target([live]),
        "get 404": Target([f"{SESSIONS}/{uuid.uuid4()}"], is_error_expected=True),
        "get 410": Target([f"{SESSIONS}/{create_expired_session(url, client)}"], is_error_expected=True),
        "heartbeat": Target([f"{live}/heartbeat"], method="POST"),
        "renew": Target([f"{live}/renew"], method="POST"),
        "create": Target([SESSIONS], method="POST", body=new_session_body()),
    }


def store_sessions(
    client: "redis.Redis", number: int, metadata: bytes = b'{"channel":"web"}', timeout_minutes: str = "30"
) -> list[str]:
    """Store this many sessions of different users, and return their ids."""
    for script in (scripts.ADD_TO_INDEX, scripts.CREATE):
        client.script_load(script.text)
    session_ids = [str(uuid.uuid4()) for _ in range(number)]
    for start in range(0, number, _SESSIONS_PER_ROUND_TRIP):
        pipeline = client.pipeline(transaction=False)
        for session_id in session_ids[start : start + _SESSIONS_PER_ROUND_TRIP]:
            for command in _creation_commands(session_id, metadata, timeout_minutes):
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        pipeline.execute()
    return session_ids


def _creation_commands(session_id: str, metadata: bytes, timeout_minutes: str) -> list[Command]:
    user_id = str(uuid.uuid4())
    owner_indexes = [OwnerIndexKeys(_KEYS.agent(AGENT)), OwnerIndexKeys(_KEYS.user(user_id))]
    create = scripts.CREATE.command(
        _KEYS.of(session_id),
        id=session_id,
        agent_id=AGENT,
        user_id=user_id,
        metadata=metadata,
        timeout_minutes=timeout_minutes,
        retention_ms=RETENTION_MS,
        **_TIMEOUTS,
    )
    return [
        *[
            scripts.ADD_TO_INDEX.command(
                owner_index, id=session_id, owner_index_lifetime_ms=OWNER_INDEX_LIFETIME_MS, created_at=""
            )
            for owner_index in owner_indexes
        ],
        create,
    ]
