"""What the OpenAPI document says of keys and tokens: where there are none, nothing."""

from collections.abc import Sequence
from typing import Any

from service.settings import Settings

_REFUSALS = {"401": "Unauthorized", "403": "Forbidden"}
_OF_GUARDED_CALLS = {
    "headers": ("Challenge",),
    "responses": ("Unauthorized", "Forbidden"),
    "examples": ("Unauthorized", "UnknownCaller", "ExpiredToken", "Forbidden"),
}
_ISSUER_AWAY = {"$ref": "#/components/examples/IssuerUnavailable"}


def fill_in_access(operations: Sequence[dict[str, Any]], components: dict[str, Any], settings: Settings) -> None:
    """The refusals of calls that need something, as far as these settings let them happen."""
    needy = [call for call in operations if call["security"]]
    if not settings.requires_authentication:
        _leave_out(operations, components)
    for call in needy if settings.requires_authentication else ():
        call["responses"] |= {status: _response(name) for status, name in _REFUSALS.items()}
    if settings.session_jwt_jwks_url is None:
        del components["responses"]["IssuerUnavailable"], components["examples"]["IssuerUnavailable"]
    else:
        _fill_in_issuer(needy, components)


def _leave_out(operations: Sequence[dict[str, Any]], components: dict[str, Any]) -> None:
    del components["securitySchemes"]
    for kind, names in _OF_GUARDED_CALLS.items():
        for name in names:
            del components[kind][name]
    for call in operations:
        del call["security"]


def _fill_in_issuer(needy: Sequence[dict[str, Any]], components: dict[str, Any]) -> None:
    """Each of these calls may meet an issuer that is away: where the store may be away too, beside that."""
    responses = components["responses"]
    also = responses["IssuerUnavailable"]["description"]
    for name in [name for name in responses if name.endswith("StoreUnavailable")]:
        responses[name]["description"] += f" {also}"
        _content(responses[name])["examples"]["issuerAway"] = _ISSUER_AWAY
    for call in needy:
        unavailable = call["responses"].setdefault("503", _response("IssuerUnavailable"))
        if "$ref" not in unavailable:
            unavailable["description"] += f" Or {also}"
            content = _content(unavailable)
            content["schema"] = {"oneOf": [content["schema"], {"$ref": "#/components/schemas/Error"}]}
            content["examples"]["issuerAway"] = _ISSUER_AWAY


def _response(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/responses/{name}"}


def _content(response: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = response["content"]["application/json"]
    return content
