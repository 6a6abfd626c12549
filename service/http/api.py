"""The Sessions API: routes, what they need of a caller, whether the audit tells of them, and handlers.

Each handler reads the request, calls the store and replies.
"""

from aiohttp import web

from service.access.callers import ADMIN, END_ALL, LIST, READ, WRITE, require_own, user_of
from service.http import wire
from service.http.app_keys import DIRECTORY, POLICIES, REVOCATION, SETTINGS, STORE
from service.http.idempotency import creation_key_of
from service.http.preconditions import revisions_of
from service.http.queries import Listing, Revocation, read_query
from service.http.requests import NewSession, PartialTimeout, agent_id_of, read_body, read_merge_patch
from service.life.records import Wish
from service.listing import cursor

SESSIONS = "/api/messaging/sessions"
SESSION = SESSIONS + "/{session_id:(?!health$)[^/]+}"
AGENT_TIMEOUT = "/api/messaging/agents/{agent_id}/timeout"

routes = web.RouteTableDef()


@routes.get(SESSION, needs=READ)
async def get(request: web.Request) -> web.StreamResponse:
    session = await request.app[STORE].get(_session_id_of(request))
    return wire.session_response(session)


@routes.post(SESSION + "/heartbeat", needs=WRITE)
async def heartbeat(request: web.Request) -> web.StreamResponse:
    session = await request.app[STORE].touch(_session_id_of(request))
    return wire.session_response(session)


@routes.post(SESSION + "/renew", needs=WRITE)
async def renew(request: web.Request) -> web.StreamResponse:
    session = await request.app[STORE].renew(_session_id_of(request))
    return wire.session_response(session)


@routes.post(SESSIONS, needs=WRITE, audited=True)
async def create(request: web.Request) -> web.StreamResponse:
    asked = await read_body(request, NewSession, request.app[SETTINGS])
    require_own(request, asked.user_id)
    key = creation_key_of(request)
    wish = Wish(asked.agent_id, asked.user_id, asked.timeout_config.changes(), asked.metadata)
    if key is not None:
        created = await request.app[STORE].create_once(key, wish)
        return wire.created_once_response(created, f"{SESSIONS}/{created.session.id}")
    session = await request.app[STORE].create(*wish)
    return wire.created_response(session, f"{SESSIONS}/{session.id}")


@routes.get(SESSIONS, needs=LIST)
async def page(request: web.Request) -> web.StreamResponse:
    asked = read_query(request, Listing, user_of(request))
    require_own(request, asked.user_id)
    page = await request.app[DIRECTORY].page(asked.wanted, asked.limit, asked.cursor)
    page = page if user_of(request) is None else page.alone()
    return wire.page_response(page, cursor.written(page.wanted, page.next) if page.next else None)


@routes.delete(SESSIONS, needs=END_ALL, audited=True)
async def revoke(request: web.Request) -> web.StreamResponse:
    asked = read_query(request, Revocation)
    require_own(request, asked.user_id)
    revoked = await request.app[REVOCATION].revoke(asked.whose, asked.cursor)
    return wire.revoked_response(revoked, cursor.written_of_rest(asked.whose, revoked.rest) if revoked.rest else None)


@routes.patch(SESSION + "/timeout", needs=WRITE)
async def configure(request: web.Request) -> web.StreamResponse:
    changes = await read_body(request, PartialTimeout, request.app[SETTINGS])
    session = await request.app[STORE].configure(_session_id_of(request), changes.changes(), revisions_of(request))
    return wire.session_response(session)


@routes.patch(SESSION + "/metadata", needs=WRITE)
async def annotate(request: web.Request) -> web.StreamResponse:
    patch = await read_merge_patch(request)
    session = await request.app[STORE].annotate(_session_id_of(request), patch, revisions_of(request))
    return wire.session_response(session)


@routes.delete(SESSION, needs=WRITE, audited=True)
async def delete(request: web.Request) -> web.StreamResponse:
    session_id = _session_id_of(request)
    await request.app[STORE].delete(session_id)
    return wire.deleted_response(session_id)


@routes.put(AGENT_TIMEOUT, needs=ADMIN, audited=True)
async def put_policy(request: web.Request) -> web.StreamResponse:
    agent_id = agent_id_of(request)
    timeout = await read_body(request, PartialTimeout, request.app[SETTINGS])
    policy = await request.app[POLICIES].put(agent_id, timeout.changes())
    return wire.policy_response(agent_id, policy)


@routes.get(AGENT_TIMEOUT, needs=ADMIN)
async def get_policy(request: web.Request) -> web.StreamResponse:
    agent_id = agent_id_of(request)
    policy = await request.app[POLICIES].get(agent_id)
    return wire.policy_response(agent_id, policy)


@routes.delete(AGENT_TIMEOUT, needs=ADMIN, audited=True)
async def delete_policy(request: web.Request) -> web.StreamResponse:
    agent_id = agent_id_of(request)
    await request.app[POLICIES].delete(agent_id)
    return wire.policy_deleted_response(agent_id)


def _session_id_of(request: web.Request) -> str:
    return request.match_info["session_id"]
