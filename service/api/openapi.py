"""The service's account of itself: an OpenAPI document that follows the settings, and a page to read it on."""

from collections.abc import Collection
from copy import deepcopy
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import yaml
from aiohttp import web

from service.api.cors import ANY_ORIGIN
from service.api.openapi_auth import fill_in_access
from service.api.openapi_caps import fill_in_caps
from service.api.openapi_rate_limits import fill_in_limits
from service.api.routes import Handler, Route
from service.auth.scopes import PUBLIC
from service.settings import Settings
from service.settings.sessions import Bounds

Document = dict[str, Any]

_PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_REVALIDATED = {"Cache-Control": "no-cache"}
_KEPT_FOR_A_DAY = {"Cache-Control": "public, max-age=86400"}
_SWAGGER_FILES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}


def routes(settings: Settings) -> list[Route]:
    """The document, the page, and the files that the page asks for."""
    page_headers = _REVALIDATED | {"Content-Security-Policy": _PAGE_POLICY}
    return [
        Route(
            "GET", "/openapi.json", _saying(orjson.dumps(document(settings)), "application/json", _REVALIDATED), PUBLIC
        ),
        Route("GET", "/docs", _saying(_own("docs.html"), "text/html; charset=utf-8", page_headers), PUBLIC),
        Route("GET", "/docs/docs.js", _saying(_own("docs.js"), "text/javascript; charset=utf-8", _REVALIDATED), PUBLIC),
        *[
            Route("GET", f"/docs/{name}", _sending(_swagger_folder() / name, content_type), PUBLIC)
            for name, content_type in _SWAGGER_FILES.items()
        ],
    ]


def document(settings: Settings) -> Document:
    """The OpenAPI document as it is written, with what follows the settings filled in."""
    filled = deepcopy(_as_written())
    components = filled["components"]
    _fill_in_minutes(components["schemas"], settings)
    _fill_in_defaults(components, settings)
    _fill_in_errors(components, settings.session_error_format)
    fill_in_caps(filled["paths"]["/api/messaging/sessions"]["post"], components, settings)
    fill_in_access(_operations(filled), components, settings)
    fill_in_limits(filled["paths"], components, settings)
    _fill_in_request_ids(filled)
    _fill_in_origins(filled["info"], settings.cors_origins)
    return filled


@cache
def _as_written() -> Document:
    written: Document = yaml.safe_load(_own("openapi.yaml"))
    return written


def _fill_in_minutes(schemas: Document, settings: Settings) -> None:
    kind = "integer" if settings.whole_minutes else "number"
    for member, bounds in _bounds(settings).items():
        asked = schemas[member[0].upper() + member[1:]]
        asked["type"] = schemas["TimeoutConfig"]["properties"][member]["type"] = kind
        _fill_in_bounds(asked, bounds, settings.session_out_of_range)


def _fill_in_defaults(components: Document, settings: Settings) -> None:
    """The examples of requests show the defaults: these lie within their bounds, whatever those are."""
    schemas, examples = components["schemas"], components["examples"]
    defaults = _defaults(settings)
    for member, default in defaults.items():
        schemas["NewTimeoutConfig"]["properties"][member]["default"] = default
        schemas[member[0].upper() + member[1:]]["examples"] = [default]
    for asked in (examples["NewSession"]["value"]["timeoutConfig"], examples["TimeoutChanges"]["value"]):
        asked.update({member: defaults[member] for member in asked})


def _bounds(settings: Settings) -> dict[str, Bounds]:
    return {
        "timeoutMinutes": settings.timeout_bounds,
        "maxDurationMinutes": settings.max_duration_bounds,
        "warningThresholdMinutes": settings.warning_threshold_bounds,
    }


def _defaults(settings: Settings) -> dict[str, float | bool]:
    default = settings.default_timeout
    return {
        "timeoutMinutes": default.timeout_minutes,
        "autoRenew": default.auto_renew,
        "maxDurationMinutes": default.max_duration_minutes,
        "warningThresholdMinutes": default.warning_threshold_minutes,
    }


def _fill_in_bounds(schema: Document, bounds: Bounds, out_of_range: str) -> None:
    if out_of_range == "refuse":
        schema |= {"minimum": bounds.minimum, "maximum": bounds.maximum}
        return
    del schema["minimum"], schema["maximum"]
    kind, beyond = (
        {"type": schema.pop("type")},
        [{"exclusiveMaximum": bounds.minimum}, {"exclusiveMinimum": bounds.maximum}],
    )
    schema["anyOf"] = [kind, *({"type": "number", **side} for side in beyond)]
    schema["description"] += f" What is not {bounds} is brought there."


def _fill_in_errors(components: Document, error_format: str) -> None:
    flat_error = components["schemas"].pop("FlatError")
    if error_format == "schema":
        return
    components["schemas"]["Error"] = flat_error
    for example in components["examples"].values():
        if "error" in example["value"]:
            example["value"] = _flat(example["value"])


def _flat(error: Document) -> Document:
    return {"error": error["error"]["message"], "code": error["code"], "details": error["details"]}


def _fill_in_request_ids(filled: Document) -> None:
    """Every call takes one, and every response has it: written out, the document would say so a hundred times."""
    operations = _operations(filled)
    shared = filled["components"]["responses"].values()
    own = [response for call in operations for response in call["responses"].values() if "$ref" not in response]
    for call in operations:
        call.setdefault("parameters", []).append({"$ref": "#/components/parameters/RequestId"})
    for response in (*shared, *own):
        response.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/RequestId"}


def _fill_in_origins(info: Document, origins: Collection[str]) -> None:
    """Where pages of other sites may call."""
    if origins:
        whose = "any site" if ANY_ORIGIN in origins else ", ".join(sorted(origins))
        info["description"] += (
            f"\n**Other sites.** Pages of {whose} may call, with their keys and without credentials of the browser's: "
            "`OPTIONS` on every path answers `204` to what a browser asks beforehand (CORS).\n"
        )


def _operations(filled: Document) -> list[Document]:
    return [call for path in filled["paths"].values() for name, call in path.items() if name != "parameters"]


def _own(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _swagger_folder() -> Path:
    """Found and not imported: the package brings a web framework's worth of code that nobody needs here."""
    spec = find_spec("swagger_ui")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "static")


def _saying(body: bytes, content_type: str, headers: dict[str, str]) -> Handler:
    async def say(_: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers | {"Content-Type": content_type})

    return say


def _sending(path: Path, content_type: str) -> Handler:
    async def send(_: web.Request) -> web.FileResponse:
        return web.FileResponse(path, headers=_KEPT_FOR_A_DAY | {"Content-Type": content_type})

    return send
