"""What handlers find in the application, by typed key."""

from aiohttp import web

from service.api.access_log import AccessLog
from service.api.client_address import ClientAddresses
from service.maintenance.health import Health
from service.sessions.listing import SessionListing
from service.sessions.policies import Policies
from service.sessions.revocation import BulkRevocation
from service.sessions.store import SessionStore
from service.settings import Settings

SETTINGS = web.AppKey("settings", Settings)
STORE = web.AppKey("store", SessionStore)
ACCESS_LOG = web.AppKey("watch", AccessLog)
POLICIES = web.AppKey("policies", Policies)
HEALTH = web.AppKey("health", Health)
LISTING = web.AppKey("directory", SessionListing)
REVOKER = web.AppKey("revocation", BulkRevocation)
CLIENT_ADDRESSES = web.AppKey("addresses", ClientAddresses)
