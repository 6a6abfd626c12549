"""What handlers find in the application, by typed key."""

from aiohttp import web

from service.directory import Directory
from service.health import Health
from service.policies import Policies
from service.revocation import Revocation
from service.settings import Settings
from service.store import Store
from service.watch import Watch

SETTINGS = web.AppKey("settings", Settings)
STORE = web.AppKey("store", Store)
WATCH = web.AppKey("watch", Watch)
POLICIES = web.AppKey("policies", Policies)
HEALTH = web.AppKey("health", Health)
DIRECTORY = web.AppKey("directory", Directory)
REVOCATION = web.AppKey("revocation", Revocation)
