"""What a change asks of the session's revision: `If-Match`, as RFC 9110 writes it, with tags from `ETag`."""

import re

from aiohttp import web

from service.errors import InvalidRequest
from service.sessions.session import Revisions

IF_MATCH = "If-Match"

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\U0010ffff]*"'
_TAGS = re.compile(rf"(?:[ \t]*,)*[ \t]*{_TAG}(?:[ \t]*,(?:[ \t]*{_TAG})?)*[ \t]*")
_EACH_TAG = re.compile(r'(W/)?"([^"]*)"')
_REVISION = re.compile(r"[1-9][0-9]{0,15}")


def revisions_of(request: web.Request) -> Revisions | None:
    """Those that `If-Match` names; None where any will do. A weak tag matches nothing. Raises InvalidRequest."""
    lines = request.headers.getall(IF_MATCH, None)
    if lines is None:
        return None
    wanted = ", ".join(lines)
    if wanted.strip() == "*":  # a session that lives always is at some revision
        return None
    if not _TAGS.fullmatch(wanted):
        raise InvalidRequest({IF_MATCH: 'must be * or a list of tags in double quotes, as ETag has them: "7"'})
    return frozenset(tag.encode() for weak, tag in _EACH_TAG.findall(wanted) if not weak and _REVISION.fullmatch(tag))
