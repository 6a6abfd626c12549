"""Typed keys of the services in an application and of the values in a request."""

from aiohttp import web

from service.api.access_log import AccessLog
from service.auth.scopes import Caller
from service.live.hub import Hub
from service.live.inbox_consumers import InboxConsumers
from service.maintenance.health import Health
from service.messages.history import MessageHistory
from service.messages.inbox import Inboxes
from service.rate_limit.buckets import RateLimitStatus
from service.sessions.listing import SessionListing
from service.sessions.policies import Policies
from service.sessions.revocation import BulkRevocation
from service.sessions.store import SessionStore
from service.settings import Settings
from service.shared_secret import SharedSecret

SETTINGS = web.AppKey("settings", Settings)
STORE = web.AppKey("store", SessionStore)
LISTING = web.AppKey("listing", SessionListing)
REVOCATION = web.AppKey("revocation", BulkRevocation)
POLICIES = web.AppKey("policies", Policies)
SHARED_SECRET = web.AppKey("shared_secret", SharedSecret)
HISTORY = web.AppKey("history", MessageHistory)
INBOXES = web.AppKey("inboxes", Inboxes)
HUB = web.AppKey("hub", Hub)
INBOX_CONSUMERS = web.AppKey("inbox_consumers", InboxConsumers)
HEALTH = web.AppKey("health", Health)
ACCESS_LOG = web.AppKey("access_log", AccessLog)

CALLER = web.RequestKey("caller", Caller)
"""Set by authentication. Absent if authentication is off."""

RATE_LIMIT_STATUS = web.RequestKey("rate_limit_status", RateLimitStatus)
"""Set by rate limiting. Absent if rate limits are off."""
