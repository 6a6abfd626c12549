"""The ids in the path of a request, and the owner whose sessions its caller has access to."""

from aiohttp import web

from service.api.app_keys import CALLER
from service.errors import InvalidRequest
from service.identifiers import parse_uuid


def session_id_of(request: web.Request) -> str:
    return request.match_info["session_id"].lower()


def message_id_of(request: web.Request) -> str:
    return request.match_info["message_id"].lower()


def agent_id_of(request: web.Request) -> str:
    """Raises InvalidRequest if the id is not a UUID."""
    try:
        return parse_uuid(request.match_info["agent_id"])
    except ValueError as error:
        raise InvalidRequest({"agentId": str(error)}) from None


def owner_id_of(request: web.Request) -> str | None:
    """Return the owner whose sessions the caller has access to. None: all sessions. See SessionStore."""
    caller = request.get(CALLER)
    return None if caller is None else caller.owner_id
