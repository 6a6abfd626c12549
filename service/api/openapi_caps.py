"""What the OpenAPI document says of caps on sessions: where there are none, nothing."""

from typing import Any

from service.settings import Settings

_POLICIES = {
    "deny": " A user or an agent with as many sessions as may live at once is refused another one with `409`.",
    "evict": " Where as many sessions of a user or an agent live as may at once, the least recently active ends.",
}


def fill_in_caps(creation: dict[str, Any], components: dict[str, Any], settings: Settings) -> None:
    """What the call that creates a session does at a cap, and how it may be refused there."""
    responses, examples = components["responses"], components["examples"]
    limit_reached = responses.pop("SessionLimitReached")
    if settings.caps is None:
        del responses["CreationContentionOrStoreUnavailable"], examples["CreationContention"]
    else:
        creation["description"] += _POLICIES[settings.session_cap_policy]
        creation["responses"]["503"] = {"$ref": "#/components/responses/CreationContentionOrStoreUnavailable"}
    if settings.caps is None or settings.session_cap_policy == "evict":
        del examples["SessionLimitReached"]
    else:
        _add(responses["SessionRevoked"], limit_reached)


def _add(response: dict[str, Any], other: dict[str, Any]) -> None:
    """What is answered with the same status for another reason."""
    response["description"] += f" {other['description']}"
    response["content"]["application/json"]["examples"] |= other["content"]["application/json"]["examples"]
