"""Build the session store from the settings and a Redis client."""

from service.redis_client.client import RedisClient
from service.sessions.cap_enforcer import CapEnforcer
from service.sessions.creation import SessionCreation
from service.sessions.events import SessionEvents
from service.sessions.idempotency import IdempotencyRecords
from service.sessions.keys import Keys
from service.sessions.owner_index import OwnerIndex
from service.sessions.policies import Policies
from service.sessions.store import SessionStore
from service.settings import Settings
from service.shared_secret import SharedSecret


def build_keys(settings: Settings) -> Keys:
    return Keys(settings.session_key_prefix, capped=settings.caps is not None)


def build_session_store(
    settings: Settings, client: RedisClient, events: SessionEvents, shared_secret: SharedSecret
) -> SessionStore:
    keys = build_keys(settings)
    policies = Policies(client, keys, events, settings)
    owner_index = OwnerIndex(client, keys, events, lifetime_ms=settings.owner_index_lifetime_ms)
    caps = settings.caps
    cap_enforcer = None if caps is None else CapEnforcer(client, keys, events, owner_index, caps, settings)
    records = IdempotencyRecords(client, keys, shared_secret, lifetime_ms=settings.record_lifetime_ms)
    creation = SessionCreation(client, keys, events, policies, owner_index, cap_enforcer, records, settings)
    return SessionStore(client, keys, events, owner_index, creation, settings)
