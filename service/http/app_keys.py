"""What handlers find in the application, by typed key."""

from aiohttp import web

from service.checks.health import Health
from service.http.addresses import Addresses
from service.http.watch import Watch
from service.life.policies import Policies
from service.life.store import Store
from service.listing.directory import Directory
from service.listing.revocation import Revocation
from service.settings import Settings

SETTINGS = web.AppKey("settings", Settings)
STORE = web.AppKey("store", Store)
WATCH = web.AppKey("watch", Watch)
POLICIES = web.AppKey("policies", Policies)
HEALTH = web.AppKey("health", Health)
DIRECTORY = web.AppKey("directory", Directory)
REVOCATION = web.AppKey("revocation", Revocation)
ADDRESSES = web.AppKey("addresses", Addresses)
