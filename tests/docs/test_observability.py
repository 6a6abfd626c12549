"""Compare docs/observability.md with the health reasons, log events, audit records and metrics of the service."""

import ast
import re
from collections.abc import Iterator
from typing import get_args

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.end_reasons import END_REASONS
from service.observability.audit import ActorKind
from service.observability.metrics import CAP_OWNERS, LOGS, RATE_LIMITS, RENEWAL_TRIGGERS, STORE_ERRORS
from tests.conftest import AGENT, USER, HttpClient
from tests.docs import markdown
from tests.test_walkthrough import SESSIONS

PAGE = markdown.document("docs/observability.md")
SERVICE = markdown.ROOT / "service"
TREES = [ast.parse(path.read_text()) for path in sorted(SERVICE.rglob("*.py"))]
HEALTH_SOURCE = (SERVICE / "maintenance" / "health.py").read_text()


def first_cells(heading: str) -> list[str]:
    """Return the code spans in the first column of the tables below a heading."""
    section = markdown.section(PAGE, heading).partition("\n### Alerts")[0]
    rows = markdown.table_rows(section)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]


def written(family: Metric) -> str:
    """Return the name and the labels of a metric, as the document has them."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = [label for label in family.samples[0].labels if label != "le"]
    return f"{name}{{{','.join(labels)}}}" if labels else name


def constants() -> set[str]:
    """Return every string in the source of the service."""
    nodes = (node for tree in TREES for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {node.value for node in nodes if isinstance(node.value, str)}


def problems() -> Iterator[str]:
    """Yield the format string of each warning and error, and both messages of each incident."""
    for node in (node for tree in TREES for node in ast.walk(tree)):
        match node:
            case (
                ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log"), attr="warning" | "error" | "exception"),
                    args=[ast.Constant(value=str(message)), *_],
                )
                | ast.Call(
                    func=ast.Attribute(attr="log" | "bind"),
                    args=[ast.Constant(value="warning" | "error"), ast.Constant(value=str(message)), *_],
                )
            ):
                yield message
            case ast.Call(
                func=ast.Name(id="Incident"),
                args=[ast.Constant(value=str(began)), ast.Constant(value=str(ended)), *_],
            ):
                yield began
                yield ended


def parts_of(message: str) -> list[str]:
    """Return the fixed parts of a message in the document or in the source."""
    return [part.strip(" :()") for part in re.split(r"…|%[sd]|\(%[sd]\)", message) if part.strip(" :()")]


EVENTS = first_cells("Events")
STRINGS = constants()


def test_every_reason_of_health_is_listed() -> None:
    codes = set(re.findall(r'"([A-Z]+_[A-Z]+)"', HEALTH_SOURCE)) | {"STORE_UNAVAILABLE"}

    assert set(first_cells("Health")) == codes


@pytest.mark.parametrize("event", EVENTS)
def test_a_listed_event_is_a_message_of_the_service(event: str) -> None:
    unknown = [part for part in parts_of(event) if not any(part in text for text in STRINGS)]

    assert unknown == []


@pytest.mark.parametrize("message", sorted({message for message in problems() if parts_of(message)}))
def test_every_warning_and_error_is_listed(message: str) -> None:
    assert any(all(part in message for part in parts_of(event)) for event in EVENTS)


def test_the_actions_of_the_audit_log_are_listed() -> None:
    rows = markdown.table_rows(markdown.section(PAGE, "Audit log"))
    actions = {name for row in rows if len(row) == 3 for name in re.findall(r"`([a-z.]+)`", row[0])}
    strings = {text for text in STRINGS if re.fullmatch(r"(?:sessions?|message)\.(?!hash)[a-z]+", text)}

    assert actions == strings | {"policy.put", "policy.delete", "access"}


def test_every_reason_of_an_end_is_listed() -> None:
    [row] = [row for row in markdown.table_rows(markdown.section(PAGE, "Audit log")) if row[0] == "`session.end`"]

    assert set(re.findall(r"`(\w+)`", row[1])) - {"reason"} == set(END_REASONS)


def test_every_kind_of_actor_is_listed() -> None:
    kinds = re.findall(r"^\| `(\w+):?`", markdown.section(PAGE, "Audit log"), re.MULTILINE)

    assert set(get_args(ActorKind)) <= set(kinds)


async def test_every_metric_is_listed_with_its_labels(client: HttpClient) -> None:
    await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    served = await (await client.get("/metrics")).text()
    families = [family for family in text_string_to_metric_families(served) if family.name.startswith("sessions_")]

    assert sorted(first_cells("Metrics")) == sorted(map(written, families))


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("sessions_renewed_total", RENEWAL_TRIGGERS),
        ("sessions_denied_total", CAP_OWNERS),
        ("sessions_requests_limited_total", RATE_LIMITS),
        ("sessions_store_errors_total", STORE_ERRORS),
        ("sessions_log_lines_dropped_total", LOGS),
    ],
)
def test_every_label_value_is_listed(metric: str, values: tuple[str, ...]) -> None:
    [row] = [row for row in markdown.table_rows(PAGE) if row[0].startswith(f"`{metric}{{")]

    assert set(re.findall(r"`([a-z-]+)`", row[1])) == set(values)
