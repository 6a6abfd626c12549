"""What the OpenAPI document says of limits: where there are none, nothing."""

from collections.abc import Iterator
from typing import Any

from service.settings import Settings

_OF_LIMITS = {
    "headers": ("RateLimit", "RateLimitPolicy"),
    "responses": ("RateLimited",),
    "examples": ("RateLimited", "GuessesSpent"),
}
_FIELDS = {
    "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
}


def fill_in_limits(paths: dict[str, Any], components: dict[str, Any], settings: Settings) -> None:
    """429 with the calls that may meet it, and how limits stand with what succeeds of them."""
    calls = list(_limited_calls(paths, settings))
    if not calls:
        _leave_out(components)
    for call in calls:
        call["responses"]["429"] = {"$ref": "#/components/responses/RateLimited"}
        if "messaging" in call["tags"]:
            _add_fields(call, components)


def _limited_calls(paths: dict[str, Any], settings: Settings) -> Iterator[dict[str, Any]]:
    """All about sessions where requests are counted; where guesses are, what names a session or takes a key."""
    requests = settings.rate_per_address or settings.rate_per_caller
    failed_lookups = settings.failed_lookups_per_address or settings.failed_lookups_per_caller
    for path, item in paths.items():
        for call in (item[method] for method in item.keys() - {"parameters"}):
            is_counted = requests and "messaging" in call["tags"]
            names_a_session = failed_lookups and "{sessionId}" in path
            takes_a_key = settings.failed_lookups_per_address and call.get("security")
            if is_counted or names_a_session or takes_a_key:
                yield call


def _leave_out(components: dict[str, Any]) -> None:
    for kind, names in _OF_LIMITS.items():
        for name in names:
            del components[kind][name]


def _add_fields(call: dict[str, Any], components: dict[str, Any]) -> None:
    for status, response in call["responses"].items():
        if status.startswith("2"):
            described = components["responses"][response["$ref"].rpartition("/")[2]] if "$ref" in response else response
            described.setdefault("headers", {}).update(_FIELDS)
