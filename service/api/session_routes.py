"""The Sessions API: routes, what they need of a caller, whether the audit tells of them, and handlers.

Each handler reads the request, calls the store and replies.
"""

from aiohttp import web

from service.api import responses
from service.api.app_keys import LISTING, POLICIES, REVOKER, SETTINGS, STORE
from service.api.idempotency_key import creation_key_of
from service.api.preconditions import revisions_of
from service.api.queries import ListingQuery, RevocationQuery, read_query
from service.api.request_bodies import CreateSessionBody, TimeoutBody, agent_id_of, read_body, read_merge_patch
from service.auth.scopes import ADMIN, END_ALL, LIST, READ, WRITE, require_own, user_of
from service.sessions import cursors
from service.sessions.session import NewSession

SESSIONS = "/api/messaging/sessions"
SESSION = SESSIONS + "/{session_id:(?!health$)[^/]+}"
AGENT_TIMEOUT = "/api/messaging/agents/{agent_id}/timeout"

routes = web.RouteTableDef()


@routes.get(SESSION, needs=READ)
async def get(request: web.Request) -> web.StreamResponse:
    session = await request.app[STORE].get(_session_id_of(request), user_of(request))
    return responses.session_response(session)


@routes.post(SESSION + "/heartbeat", needs=WRITE)
async def heartbeat(request: web.Request) -> web.StreamResponse:
    session = await request.app[STORE].heartbeat(_session_id_of(request), user_of(request))
    return responses.session_response(session)


@routes.post(SESSION + "/renew", needs=WRITE)
async def renew(request: web.Request) -> web.StreamResponse:
    session = await request.app[STORE].renew(_session_id_of(request), user_of(request))
    return responses.session_response(session)


@routes.post(SESSIONS, needs=WRITE, audited=True)
async def create(request: web.Request) -> web.StreamResponse:
    asked = await read_body(request, CreateSessionBody, request.app[SETTINGS])
    require_own(request, asked.user_id)
    key = creation_key_of(request)
    new_session = NewSession(asked.agent_id, asked.user_id, asked.timeout_config.changes(), asked.metadata)
    created = await request.app[STORE].create(new_session, key)
    return responses.created_response(created, f"{SESSIONS}/{created.session.id}")


@routes.get(SESSIONS, needs=LIST)
async def page(request: web.Request) -> web.StreamResponse:
    asked = read_query(request, ListingQuery, user_of(request))
    require_own(request, asked.user_id)
    page = await request.app[LISTING].page(asked.wanted, asked.limit, asked.cursor)
    page = page if user_of(request) is None else page.alone()
    return responses.page_response(page, cursors.written(page.wanted, page.next) if page.next else None)


@routes.delete(SESSIONS, needs=END_ALL, audited=True)
async def revoke(request: web.Request) -> web.StreamResponse:
    asked = read_query(request, RevocationQuery)
    require_own(request, asked.user_id)
    revoked = await request.app[REVOKER].revoke(asked.whose, asked.cursor)
    return responses.revoked_response(
        revoked, cursors.written_of_rest(asked.whose, revoked.rest) if revoked.rest else None
    )


@routes.patch(SESSION + "/timeout", needs=WRITE)
async def update_timeout(request: web.Request) -> web.StreamResponse:
    changes = await read_body(request, TimeoutBody, request.app[SETTINGS])
    session = await request.app[STORE].update_timeout(
        _session_id_of(request), changes.changes(), revisions_of(request), user_of(request)
    )
    return responses.session_response(session)


@routes.patch(SESSION + "/metadata", needs=WRITE)
async def update_metadata(request: web.Request) -> web.StreamResponse:
    patch = await read_merge_patch(request)
    session = await request.app[STORE].update_metadata(
        _session_id_of(request), patch, revisions_of(request), user_of(request)
    )
    return responses.session_response(session)


@routes.delete(SESSION, needs=WRITE, audited=True)
async def delete(request: web.Request) -> web.StreamResponse:
    session_id = _session_id_of(request)
    await request.app[STORE].delete(session_id, user_of(request))
    return responses.deleted_response(session_id)


@routes.put(AGENT_TIMEOUT, needs=ADMIN, audited=True)
async def put_policy(request: web.Request) -> web.StreamResponse:
    agent_id = agent_id_of(request)
    timeout = await read_body(request, TimeoutBody, request.app[SETTINGS])
    policy = await request.app[POLICIES].put(agent_id, timeout.changes())
    return responses.policy_response(agent_id, policy)


@routes.get(AGENT_TIMEOUT, needs=ADMIN)
async def get_policy(request: web.Request) -> web.StreamResponse:
    agent_id = agent_id_of(request)
    policy = await request.app[POLICIES].get(agent_id)
    return responses.policy_response(agent_id, policy)


@routes.delete(AGENT_TIMEOUT, needs=ADMIN, audited=True)
async def delete_policy(request: web.Request) -> web.StreamResponse:
    agent_id = agent_id_of(request)
    await request.app[POLICIES].delete(agent_id)
    return responses.policy_deleted_response(agent_id)


def _session_id_of(request: web.Request) -> str:
    return request.match_info["session_id"]
