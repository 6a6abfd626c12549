"""The OpenAPI document and the documentation page."""

from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import yaml
from aiohttp import web

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
_REVALIDATE = {"Cache-Control": "no-cache"}
_CACHE_FOR_A_DAY = {"Cache-Control": "public, max-age=86400"}
_SWAGGER_FILES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
_COMMON_ERRORS = {"401": "Unauthorized", "403": "Forbidden", "429": "RateLimited"}
"""The responses of all operations that require authentication."""


def routes(settings: Settings) -> list[Route]:
    """Return the routes of the document, the page and the files of the page."""
    page_headers = _REVALIDATE | {"Content-Security-Policy": _PAGE_POLICY}
    handlers = {
        "/openapi.json": _send_bytes(orjson.dumps(document(settings)), "application/json", _REVALIDATE),
        "/docs": _send_bytes(_read("docs.html"), "text/html; charset=utf-8", page_headers),
        "/docs/docs.js": _send_bytes(_read("docs.js"), "text/javascript; charset=utf-8", _REVALIDATE),
    }
    for name, content_type in _SWAGGER_FILES.items():
        handlers[f"/docs/{name}"] = _send_file(_swagger_folder() / name, content_type)
    return [Route("GET", path, handler, PUBLIC) for path, handler in handlers.items()]


def document(settings: Settings) -> Document:
    """Return the OpenAPI document. Only the bounds of minutes and the error format depend on the settings."""
    document: Document = orjson.loads(_complete_document())
    _set_minutes(document["components"]["schemas"], settings)
    _set_defaults(document["components"], settings)
    _set_error_format(document["components"], settings.session_error_format)
    return document


@cache
def _complete_document() -> bytes:
    """Return the document with the parts that all operations share, as JSON."""
    document: Document = yaml.load(_read("openapi.yaml"), yaml.CSafeLoader)
    messages: Document = yaml.load(_read("openapi_messages.yaml"), yaml.CSafeLoader)
    document["paths"] |= messages["paths"]
    for kind, components in messages["components"].items():
        document["components"][kind] |= components
    responses = document["components"]["responses"]
    for operation in _operations(document):
        operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/RequestId"})
        if operation["security"]:
            errors = {status: {"$ref": f"#/components/responses/{name}"} for status, name in _COMMON_ERRORS.items()}
            operation["responses"] |= errors
        for status, response in operation["responses"].items():
            headers = _resolve(response, responses).setdefault("headers", {})
            headers["X-Request-ID"] = {"$ref": "#/components/headers/RequestId"}
            if "messaging" in operation["tags"] and status.startswith("2"):
                headers["RateLimit-Policy"] = {"$ref": "#/components/headers/RateLimitPolicy"}
                headers["RateLimit"] = {"$ref": "#/components/headers/RateLimit"}
    return orjson.dumps(document)


def _operations(document: Document) -> Iterator[Document]:
    for path in document["paths"].values():
        yield from (operation for method, operation in path.items() if method != "parameters")


def _resolve(response: Document, responses: Document) -> Document:
    resolved: Document = responses[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
    return resolved


def _set_minutes(schemas: Document, settings: Settings) -> None:
    number_type = "integer" if settings.whole_minutes else "number"
    for member, bounds in _bounds(settings).items():
        schema = schemas[member[0].upper() + member[1:]]
        schema["type"] = schemas["TimeoutConfig"]["properties"][member]["type"] = number_type
        _set_bounds(schema, bounds, settings.session_out_of_range)


def _bounds(settings: Settings) -> dict[str, Bounds]:
    return {
        "timeoutMinutes": settings.timeout_bounds,
        "maxDurationMinutes": settings.max_duration_bounds,
        "warningThresholdMinutes": settings.warning_threshold_bounds,
    }


def _set_bounds(schema: Document, bounds: Bounds, out_of_range: str) -> None:
    """Set the minimum and the maximum. If values are clamped, accept any number beyond the bounds."""
    if out_of_range == "refuse":
        schema |= {"minimum": bounds.minimum, "maximum": bounds.maximum}
        return
    del schema["minimum"], schema["maximum"]
    beyond = [{"exclusiveMaximum": bounds.minimum}, {"exclusiveMinimum": bounds.maximum}]
    schema["anyOf"] = [{"type": schema.pop("type")}, *({"type": "number", **side} for side in beyond)]
    schema["description"] += f" Other values are replaced by the nearest value {bounds}."


def _set_defaults(components: Document, settings: Settings) -> None:
    """Set the default values, also in the examples of requests: they are always within the bounds."""
    schemas, examples = components["schemas"], components["examples"]
    timeout = settings.default_timeout
    defaults = {
        "timeoutMinutes": timeout.timeout_minutes,
        "autoRenew": timeout.auto_renew,
        "maxDurationMinutes": timeout.max_duration_minutes,
        "warningThresholdMinutes": timeout.warning_threshold_minutes,
    }
    for member, default in defaults.items():
        schemas["NewTimeoutConfig"]["properties"][member]["default"] = default
        schemas[member[0].upper() + member[1:]]["examples"] = [default]
    for members in (examples["NewSession"]["value"]["timeoutConfig"], examples["TimeoutChanges"]["value"]):
        members.update({member: defaults[member] for member in members})


def _set_error_format(components: Document, error_format: str) -> None:
    flat_error = components["schemas"].pop("FlatError")
    if error_format == "schema":
        return
    components["schemas"]["Error"] = flat_error
    for example in components["examples"].values():
        value = example["value"]
        if "error" in value:
            example["value"] = {"error": value["error"]["message"], "code": value["code"], "details": value["details"]}


def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _swagger_folder() -> Path:
    """Find the files of swagger-ui-py without importing it: the package would load a web framework."""
    spec = find_spec("swagger_ui")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "static")


def _send_bytes(body: bytes, content_type: str, headers: dict[str, str]) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers=headers | {"Content-Type": content_type})

    return handle


def _send_file(path: Path, content_type: str) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers=_CACHE_FOR_A_DAY | {"Content-Type": content_type})

    return handle
