"""Tests that the Compose files, the image and the dashboard are secure by default and match the service."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.api.response_bodies import error_response
from service.api.security_headers import SECURITY_HEADERS
from service.auth.authenticator import require_authentication
from service.errors import ServiceError, StartupError
from service.maintenance.startup_checks import STREAM_NODE_MAX_BYTES
from service.settings import MAX_METADATA_BYTES, Settings
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
FILES = [
    ROOT / "docker-compose.yml",
    DEPLOY / "sentinel" / "docker-compose.yml",
    DEPLOY / "cluster" / "docker-compose.yml",
]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
ERRORS_PAGE = (ROOT / "docs" / "errors.md").read_text()
BASE_IMAGES = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
ERROR_FILES = sorted((DEPLOY / "errors").glob("*.http"))
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "sessions.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
METRIC_NAME = re.compile(r"\b(?:sessions|process)_\w+|\bup\b")

Service = dict[str, Any]


def services_of(file: Path) -> dict[str, Service]:
    """The services of a Compose file, with `extends` resolved and mounted paths made absolute."""
    services: dict[str, Service] = yaml.safe_load(file.read_text())["services"]
    return {name: resolved(service, file.parent) for name, service in services.items()}


def resolved(service: Service, folder: Path) -> Service:
    volumes = [absolute_volume(folder, volume) for volume in service.get("volumes", [])]
    own = {**service, **({"volumes": volumes} if volumes else {})}
    if "extends" not in service:
        return own
    extends = own.pop("extends")
    return merged(services_of((folder / extends["file"]).resolve())[extends["service"]], own)


def absolute_volume(folder: Path, volume: str) -> str:
    source, _, rest = volume.partition(":")
    return f"{(folder / source).resolve()}:{rest}" if source.startswith(".") else volume


def merged(base: Service, own: Service) -> Service:
    both: Service = {
        name: base[name] | own[name] for name in ("environment", "healthcheck") if name in base and name in own
    }
    return {**base, **own, "volumes": [*base.get("volumes", []), *own.get("volumes", [])], **both}


SERVICES = {file: services_of(file) for file in FILES}
DEFAULT = SERVICES[FILES[0]]
ALL_SERVICES = {
    f"{file.parent.name}-{name}": service for file, services in SERVICES.items() for name, service in services.items()
}
IMAGES = {service["image"] for service in ALL_SERVICES.values() if "build" not in service}


def for_each(services: dict[str, Service]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("service", services.values(), ids=services.keys())


FOR_EACH_FILE = pytest.mark.parametrize("services", SERVICES.values(), ids=[file.parent.name for file in FILES])
FOR_EACH_REDIS_SERVER = for_each(
    {
        name: service
        for name, service in ALL_SERVICES.items()
        if service["image"].startswith("valkey/") and "form" not in name
    }
)


class ExampleError(ServiceError):
    status, code, message = 418, "EXAMPLE", "Example"


@FOR_EACH_FILE
def test_only_the_balancer_is_published(services: dict[str, Service]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}

    assert published.pop("grafana", None) == services.get("grafana", {}).get("ports")
    assert published == {"balancer": ["${PUBLISH_ADDRESS:-127.0.0.1}:3000:3000"]}


def test_the_watch_profile_also_publishes_grafana() -> None:
    published = {
        name: service.get("ports") for name, service in DEFAULT.items() if service.get("profiles") == ["watch"]
    }

    assert published == {"prometheus": None, "grafana": ["${PUBLISH_ADDRESS:-127.0.0.1}:3001:3000"]}


@pytest.mark.parametrize("image", sorted({*IMAGES, *BASE_IMAGES}))
def test_images_are_pinned_to_a_version(image: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image)


@for_each(ALL_SERVICES)
def test_containers_cannot_gain_privileges(service: Service) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service


@for_each(ALL_SERVICES)
def test_containers_do_not_run_as_root(service: Service) -> None:
    assert service["user"] in ("10001", "472", "haproxy", "nobody", "valkey")


@for_each(ALL_SERVICES)
def test_containers_have_a_process_limit(service: Service) -> None:
    assert service["pids_limit"] <= 512


@for_each(ALL_SERVICES)
def test_containers_do_not_share_host_namespaces_or_devices(service: Service) -> None:
    assert service.keys() & {"pid", "ipc", "network_mode", "devices", "userns_mode"} == set()
    assert [volume for volume in service["volumes"] if "docker.sock" in volume] == []


@for_each(ALL_SERVICES)
def test_root_file_systems_are_read_only(service: Service) -> None:
    assert service["read_only"] is True


@FOR_EACH_REDIS_SERVER
def test_redis_servers_have_a_health_check(service: Service) -> None:
    assert service["healthcheck"]["test"][:2] == ["CMD", "valkey-cli"]


@FOR_EACH_FILE
def test_the_balancer_has_a_health_check(services: dict[str, Service]) -> None:
    assert services["balancer"]["healthcheck"]["test"][0] == "CMD"


@for_each(ALL_SERVICES)
def test_mounted_files_exist(service: Service) -> None:
    paths = [volume.partition(":")[0] for volume in service["volumes"] if volume.startswith("/")]

    assert [path for path in paths if not Path(path).exists()] == []


def test_the_image_has_a_health_check_and_runs_unprivileged() -> None:
    assert "\nHEALTHCHECK " in DOCKERFILE
    assert "/livez" in DOCKERFILE
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_valkey_persists_data_and_does_not_evict() -> None:
    lines = (DEPLOY / "valkey.conf").read_text().splitlines()
    options = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))

    assert (options["appendonly"], options["maxmemory-policy"]) == ("yes", "noeviction")
    assert options["hash-max-listpack-value"] == str(MAX_METADATA_BYTES)
    assert options["stream-node-max-bytes"] == str(STREAM_NODE_MAX_BYTES)


@FOR_EACH_REDIS_SERVER
def test_every_server_uses_this_configuration_and_has_a_volume(service: Service) -> None:
    assert f"{DEPLOY / 'valkey.conf'}:/etc/valkey.conf:ro" in service["volumes"]
    assert [volume for volume in service["volumes"] if volume.endswith(":/data")] != []


@FOR_EACH_FILE
def test_no_two_servers_share_a_volume(services: dict[str, Service]) -> None:
    volumes = [volume for service in services.values() for volume in service["volumes"] if volume.endswith(":/data")]

    assert len(set(volumes)) == len(volumes)


@FOR_EACH_FILE
def test_only_the_service_can_reach_redis(services: dict[str, Service]) -> None:
    connected = {name for name, service in services.items() if "store" in service["networks"]}
    servers = {name for name, service in services.items() if service["image"].startswith("valkey/")}

    assert connected == servers | {"service"}


def test_the_service_uses_its_own_redis_account() -> None:
    url = settings_of(DEFAULT["service"]).redis_url
    assert url is not None

    assert unquote(url.get_secret_value()).startswith("redis://session-service:${REDIS_PASSWORD:-session-service}@")
    assert DEFAULT["redis"]["environment"]["REDIS_PASSWORD"] == "${REDIS_PASSWORD:-session-service}"


@FOR_EACH_FILE
def test_the_environment_contains_only_known_settings(services: dict[str, Service]) -> None:
    environment = services["service"]["environment"]

    assert set(environment) <= {name.upper() for name in Settings.model_fields}
    assert settings_of(services["service"]).redis_url is not None


@FOR_EACH_FILE
@pytest.mark.parametrize(
    ("environment", "is_anonymous"),
    [
        ({}, True),
        ({"PUBLISH_ADDRESS": "127.0.0.1"}, True),
        ({"PUBLISH_ADDRESS": "0.0.0.0"}, False),
        ({"PUBLISH_ADDRESS": "192.0.2.1"}, False),
        ({"PUBLISH_ADDRESS": "0.0.0.0", "SESSION_ALLOW_ANONYMOUS": "true"}, True),
    ],
    ids=str,
)
def test_anonymous_access_is_allowed_only_if_the_balancer_is_published_on_this_machine(
    services: dict[str, Service], environment: dict[str, str], is_anonymous: bool, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$SESSION_ALLOW_ANONYMOUS"\n')
    python.chmod(0o700)

    output = subprocess.check_output(
        services["service"]["command"], env={"PATH": f"{tmp_path}:/usr/bin:/bin", **environment}, text=True
    )

    settings = Settings(host="0.0.0.0", session_allow_anonymous=output.strip() == "true")
    assert settings.session_allow_anonymous is is_anonymous
    if not is_anonymous:
        with pytest.raises(StartupError):
            require_authentication(settings)


@FOR_EACH_FILE
def test_redis_url_names_existing_services(services: dict[str, Service]) -> None:
    url = settings_of(services["service"]).redis_url
    assert url is not None

    hosts = re.findall(r"[/,@]([\w-]+):\d+", url.get_secret_value())

    assert hosts != []
    assert set(hosts) <= set(services)


@pytest.mark.parametrize("file", FILES[1:], ids=lambda file: file.parent.name)
def test_etc_hosts_entries_match_the_addresses_of_servers(file: Path) -> None:
    hosts = yaml.safe_load(file.read_text())["x-hosts"]
    services = SERVICES[file]

    assert {name: services[name]["networks"]["store"]["ipv4_address"] for name in hosts} == hosts
    assert [services[name]["hostname"] for name in hosts] == [*hosts]
    assert [services[name]["extra_hosts"] for name in (*hosts, "service")] == [hosts] * (len(hosts) + 1)


def test_the_cluster_is_formed_of_all_nodes() -> None:
    hosts = yaml.safe_load(FILES[2].read_text())["x-hosts"]

    assert SERVICES[FILES[2]]["form"]["command"][2:] == [f"{address}:6379" for address in hosts.values()]


@FOR_EACH_FILE
def test_the_grace_period_is_longer_than_the_drain(services: dict[str, Service]) -> None:
    settings = settings_of(services["service"])
    grace_seconds = int(services["service"]["stop_grace_period"].removesuffix("s"))

    assert settings.session_drain_pause_seconds >= 3
    assert grace_seconds > settings.session_drain_pause_seconds + 2 * settings.session_drain_timeout_seconds


@pytest.mark.parametrize("path", ERROR_FILES, ids=lambda path: path.name)
def test_error_responses_of_the_balancer_have_the_format_of_the_service(path: Path) -> None:
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    error = json.loads(body)

    assert re.fullmatch(rf"HTTP/1\.1 {path.stem} [A-Z][A-Za-z ]+", status_line)
    assert headers["Content-Type"].startswith("application/json")
    assert (headers["Content-Length"], headers["Cache-Control"]) == (str(len(body)), "no-store")
    assert SECURITY_HEADERS.items() <= headers.items()
    assert shape_of(error) == shape_of(service_response(ExampleError("Example.")))
    assert f"`{error['code']}`" in ERRORS_PAGE


def test_the_503_of_the_balancer_has_retry_after() -> None:
    assert b"\r\nRetry-After: 1\r\n" in (DEPLOY / "errors" / "503.http").read_bytes()


def test_the_balancer_uses_every_error_file() -> None:
    configured = re.findall(r"errorfile \d+ (errors/\S+)", (DEPLOY / "haproxy.cfg").read_text())

    assert configured == [f"errors/{path.name}" for path in ERROR_FILES]


def test_prometheus_discovers_every_replica_by_dns() -> None:
    job = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]

    assert [(config["names"], config["type"], config["port"]) for config in job["dns_sd_configs"]] == [
        (["service"], "A", 3000)
    ]


async def test_the_dashboard_queries_existing_metrics_and_labels(client: HttpClient) -> None:
    await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    served = await (await client.get("/metrics")).text()
    samples = [sample for family in text_string_to_metric_families(served) for sample in family.samples]
    queried = {name for query in QUERIES for name in METRIC_NAME.findall(query)}

    assert [query for query in QUERIES if not METRIC_NAME.search(query)] == []
    assert queried <= {sample.name for sample in samples} | {"up"}
    assert queried_labels() <= {label for sample in samples for label in sample.labels}


def settings_of(service: Service) -> Settings:
    environment = {name.lower(): value for name, value in service["environment"].items() if value is not None}
    return Settings(**environment)


def service_response(error: ServiceError) -> object:
    body = error_response(error, "schema").body
    assert isinstance(body, bytes)
    return json.loads(body)


def queried_labels() -> set[str]:
    return {label for query in QUERIES for by in re.findall(r"by \(([^)]+)\)", query) for label in by.split(", ")}


def shape_of(value: object) -> object:
    """The names and types in a JSON value."""
    return {name: shape_of(member) for name, member in value.items()} if isinstance(value, dict) else type(value)
