"""The routes and handlers of the Sessions API. Each handler reads the request, calls the store and responds."""

from aiohttp import web

from service.api import response_bodies
from service.api.app_keys import CALLER, LISTING, POLICIES, REVOCATION, SETTINGS, SHARED_SECRET, STORE
from service.api.path_parameters import agent_id_of, owner_id_of, session_id_of
from service.api.query_parameters import ListingQuery, RevocationQuery, read_query
from service.api.request_bodies import CreateSessionBody, TimeoutBody, read_body, read_merge_patch
from service.api.request_headers import expected_revisions_of, idempotency_key_of
from service.api.routes import RouteTable
from service.auth.scopes import ADMIN, LIST, READ_AS_ANY, REVOKE, WRITE
from service.errors import Forbidden
from service.sessions.cursors import Cursors
from service.sessions.session import NewSession

SESSIONS = "/api/messaging/sessions"
SESSION = SESSIONS + "/{session_id:(?!health$)[^/]+}"
AGENT_TIMEOUT = "/api/messaging/agents/{agent_id}/timeout"

routes = RouteTable(serve_sessions=True)


@routes.get(SESSION, permission=READ_AS_ANY)
async def get(request: web.Request) -> web.StreamResponse:
    session = await request.app[STORE].get(session_id_of(request), owner_id_of(request))
    return response_bodies.session_response(session)


@routes.post(SESSION + "/heartbeat", permission=WRITE)
async def heartbeat(request: web.Request) -> web.StreamResponse:
    session = await request.app[STORE].heartbeat(session_id_of(request), _user_id_of(request))
    return response_bodies.session_response(session)


@routes.post(SESSION + "/renew", permission=WRITE)
async def renew(request: web.Request) -> web.StreamResponse:
    session = await request.app[STORE].renew(session_id_of(request), _user_id_of(request))
    return response_bodies.session_response(session)


@routes.post(SESSIONS, permission=WRITE, is_audited=True)
async def create(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, CreateSessionBody, request.app[SETTINGS])
    _require_own_sessions(request, body.user_id)
    new_session = NewSession(
        body.agent_id,
        body.user_id,
        body.timeout_config.changes(),
        body.metadata,
        evicts_only_own=_user_id_of(request) is not None,
    )
    created = await request.app[STORE].create(new_session, idempotency_key_of(request))
    return response_bodies.created_response(created, f"{SESSIONS}/{created.session.id}")


@routes.get(SESSIONS, permission=LIST, returns_page=True)
async def list_sessions(request: web.Request) -> web.StreamResponse:
    user_id = _user_id_of(request)
    cursors = _cursors_of(request)
    query = read_query(request, ListingQuery, cursors, user_id)
    _require_own_sessions(request, query.user_id)
    listing = request.app[LISTING]
    if user_id is None:
        page = await listing.page(query.session_filter, query.limit, query.cursor)
    else:
        page = await listing.page_for_user(user_id, query.session_filter, query.limit, query.cursor)
    return response_bodies.page_response(page, cursors.encode_position(page.filter, page.next) if page.next else None)


@routes.delete(SESSIONS, permission=REVOKE, is_audited=True)
async def revoke(request: web.Request) -> web.StreamResponse:
    cursors = _cursors_of(request)
    query = read_query(request, RevocationQuery, cursors)
    _require_own_sessions(request, query.user_id)
    revocation = request.app[REVOCATION]
    revoke_sessions = revocation.revoke if _user_id_of(request) is None else revocation.revoke_for_user
    revoked = await revoke_sessions(query.owner_filter, query.cursor)
    next_cursor = cursors.encode_remainder(query.owner_filter, revoked.remainder) if revoked.remainder else None
    return response_bodies.revoked_response(revoked, next_cursor)


@routes.patch(SESSION + "/timeout", permission=WRITE)
async def update_timeout(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, TimeoutBody, request.app[SETTINGS])
    session = await request.app[STORE].update_timeout(
        session_id_of(request), body.changes(), expected_revisions_of(request), _user_id_of(request)
    )
    return response_bodies.session_response(session)


@routes.patch(SESSION + "/metadata", permission=WRITE)
async def update_metadata(request: web.Request) -> web.StreamResponse:
    patch = await read_merge_patch(request)
    session = await request.app[STORE].update_metadata(
        session_id_of(request), patch, expected_revisions_of(request), _user_id_of(request)
    )
    return response_bodies.session_response(session)


@routes.delete(SESSION, permission=WRITE, is_audited=True)
async def delete(request: web.Request) -> web.StreamResponse:
    session_id = session_id_of(request)
    await request.app[STORE].delete(session_id, _user_id_of(request))
    return response_bodies.deleted_response(session_id)


@routes.put(AGENT_TIMEOUT, permission=ADMIN, is_audited=True)
async def put_policy(request: web.Request) -> web.StreamResponse:
    agent_id = agent_id_of(request)
    body = await read_body(request, TimeoutBody, request.app[SETTINGS])
    policy = await request.app[POLICIES].put(agent_id, body.changes())
    return response_bodies.policy_response(agent_id, policy)


@routes.get(AGENT_TIMEOUT, permission=ADMIN)
async def get_policy(request: web.Request) -> web.StreamResponse:
    agent_id = agent_id_of(request)
    policy = await request.app[POLICIES].get(agent_id)
    return response_bodies.policy_response(agent_id, policy)


@routes.delete(AGENT_TIMEOUT, permission=ADMIN, is_audited=True)
async def delete_policy(request: web.Request) -> web.StreamResponse:
    agent_id = agent_id_of(request)
    await request.app[POLICIES].delete(agent_id)
    return response_bodies.policy_deleted_response(agent_id)


def _user_id_of(request: web.Request) -> str | None:
    """Return the user whose sessions the caller has access to, or None for access to all sessions."""
    caller = request.get(CALLER)
    return None if caller is None else caller.user_id


def _cursors_of(request: web.Request) -> Cursors:
    return Cursors(request.app[SHARED_SECRET], _user_id_of(request))


def _require_own_sessions(request: web.Request, user_id: str | None) -> None:
    """Raises Forbidden if the caller is a user other than `user_id`."""
    own_id = _user_id_of(request)
    if own_id is not None and own_id != user_id:
        raise Forbidden("The userId must be the user of the token.")
