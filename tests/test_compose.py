"""docker-compose.yml and what lies in deploy/: safe to bring up as it stands, and true to the service."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.errors import Refusal
from service.settings import MAX_METADATA_BYTES, Settings
from service.wire import refusal_response
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS

TOP = Path(__file__).parent.parent
DEPLOY = TOP / "deploy"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((TOP / "docker-compose.yml").read_text())["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
README = (TOP / "README.md").read_text()
WITHOUT_A_PROFILE = [name for name, service in SERVICES.items() if "profiles" not in service]
PULLED = [service["image"] for service in SERVICES.values() if "build" not in service]
BASES = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
REFUSALS = sorted((DEPLOY / "errors").glob("*.http"))
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "sessions.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
METRIC = re.compile(r"\b(?:sessions|process)_\w+|\bup\b")


class AnyRefusal(Refusal):
    status, code, message = 418, "ANY", "Any"


def test_only_the_balancer_is_published() -> None:
    published = {name: SERVICES[name]["ports"] for name in WITHOUT_A_PROFILE if "ports" in SERVICES[name]}

    assert published == {"balancer": ["${PUBLISH_ADDRESS:-127.0.0.1}:3000:3000"]}


def test_the_profile_publishes_grafana_besides() -> None:
    watching = {
        name: service.get("ports") for name, service in SERVICES.items() if service.get("profiles") == ["watch"]
    }

    assert watching == {"prometheus": None, "grafana": ["${PUBLISH_ADDRESS:-127.0.0.1}:3001:3000"]}


@pytest.mark.parametrize("image", [*PULLED, *BASES])
def test_images_are_pinned_to_a_version(image: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image)


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_may_gain_privileges(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", WITHOUT_A_PROFILE)
def test_file_systems_are_read_only(name: str) -> None:
    assert SERVICES[name]["read_only"] is True


@pytest.mark.parametrize("name", ["redis", "balancer"])
def test_health_is_checked(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_the_image_checks_its_own_health_and_runs_as_nobody_special() -> None:
    assert "\nHEALTHCHECK " in DOCKERFILE
    assert "/livez" in DOCKERFILE
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_redis_keeps_what_it_is_told() -> None:
    words = SERVICES["redis"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))

    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")
    assert options["--hash-max-listpack-value"] == str(MAX_METADATA_BYTES)
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_redis_is_reached_by_the_service_alone() -> None:
    assert [name for name, service in SERVICES.items() if "store" in service["networks"]] == ["redis", "service"]


def test_the_environment_is_of_settings_that_the_service_knows() -> None:
    environment = SERVICES["service"]["environment"]

    assert set(environment) <= {name.upper() for name in Settings.model_fields}
    assert Settings(**{name.lower(): value for name, value in environment.items()}).redis_url is not None


def test_the_service_has_time_to_drain() -> None:
    environment = SERVICES["service"]["environment"]
    pause, timeout = (int(environment[f"SESSION_DRAIN_{name}_SECONDS"]) for name in ("PAUSE", "TIMEOUT"))

    assert pause >= 3
    assert int(SERVICES["service"]["stop_grace_period"].removesuffix("s")) > pause + timeout


@pytest.mark.parametrize("path", REFUSALS, ids=lambda path: path.name)
def test_the_balancer_refuses_as_the_service_does(path: Path) -> None:
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    refusal = json.loads(body)

    assert re.fullmatch(rf"HTTP/1\.1 {path.stem} [A-Z][A-Za-z ]+", status_line)
    assert headers["Content-Type"].startswith("application/json")
    assert (headers["Content-Length"], headers["Cache-Control"]) == (str(len(body)), "no-store")
    assert shape_of(refusal) == shape_of(as_the_service_says(AnyRefusal("Any.")))
    assert f"`{refusal['code']}`" in README


def test_without_a_replica_the_balancer_says_when_to_come_back() -> None:
    assert b"\r\nRetry-After: 1\r\n" in (DEPLOY / "errors" / "503.http").read_bytes()


def test_there_is_a_refusal_for_each_that_the_balancer_is_told_of() -> None:
    named = re.findall(r"errorfile \d+ (errors/\S+)", (DEPLOY / "haproxy.cfg").read_text())

    assert named == [f"errors/{path.name}" for path in REFUSALS]


def test_prometheus_finds_every_replica_by_name() -> None:
    job = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]

    assert [(found["names"], found["type"], found["port"]) for found in job["dns_sd_configs"]] == [
        (["service"], "A", 3000)
    ]


async def test_the_dashboard_asks_for_what_the_service_serves(client: HttpClient) -> None:
    await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    served = await (await client.get("/metrics")).text()
    samples = [sample for family in text_string_to_metric_families(served) for sample in family.samples]
    asked = {name for query in QUERIES for name in METRIC.findall(query)}

    assert [query for query in QUERIES if not METRIC.search(query)] == []
    assert asked <= {sample.name for sample in samples} | {"up"}
    assert labels_asked_for() <= {label for sample in samples for label in sample.labels}


def as_the_service_says(refusal: Refusal) -> object:
    body = refusal_response(refusal, "schema").body
    assert isinstance(body, bytes)
    return json.loads(body)


def labels_asked_for() -> set[str]:
    return {label for query in QUERIES for by in re.findall(r"by \(([^)]+)\)", query) for label in by.split(", ")}


def shape_of(value: object) -> object:
    """The members of a JSON value, whatever they hold."""
    return {name: shape_of(held) for name, held in value.items()} if isinstance(value, dict) else type(value)
