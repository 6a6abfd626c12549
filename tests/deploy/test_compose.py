"""docker-compose.yml and what lies in deploy/: safe to bring up as it stands, and true to the service."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.access.configured import require_guarded
from service.errors import Refusal
from service.http.safe_headers import SAFE
from service.http.wire import refusal_response
from service.settings import MAX_METADATA_BYTES, CannotStart, Settings
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS

TOP = Path(__file__).parent.parent.parent
DEPLOY = TOP / "deploy"
FILES = [
    TOP / "docker-compose.yml",
    DEPLOY / "sentinel" / "docker-compose.yml",
    DEPLOY / "cluster" / "docker-compose.yml",
]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
README = (TOP / "README.md").read_text()
BASES = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
REFUSALS = sorted((DEPLOY / "errors").glob("*.http"))
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "sessions.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
METRIC = re.compile(r"\b(?:sessions|process)_\w+|\bup\b")

Service = dict[str, Any]


def services_of(file: Path) -> dict[str, Service]:
    """As compose has them: what a service extends is merged into it, and files are found from where they are named."""
    written: dict[str, Service] = yaml.safe_load(file.read_text())["services"]
    return {name: extended(service, file.parent) for name, service in written.items()}


def extended(service: Service, folder: Path) -> Service:
    mounts = [mounted_from(folder, volume) for volume in service.get("volumes", [])]
    own = {**service, **({"volumes": mounts} if mounts else {})}
    if "extends" not in service:
        return own
    named = own.pop("extends")
    return merged(services_of((folder / named["file"]).resolve())[named["service"]], own)


def mounted_from(folder: Path, volume: str) -> str:
    """What it mounts, as an absolute path where it is a file."""
    source, _, rest = volume.partition(":")
    return f"{(folder / source).resolve()}:{rest}" if source.startswith(".") else volume


def merged(base: Service, own: Service) -> Service:
    both: Service = {
        name: base[name] | own[name] for name in ("environment", "healthcheck") if name in base and name in own
    }
    return {**base, **own, "volumes": [*base.get("volumes", []), *own.get("volumes", [])], **both}


SERVICES = {file: services_of(file) for file in FILES}
TOP_LEVEL = SERVICES[FILES[0]]
NAMED = {
    f"{file.parent.name}-{name}": service for file, services in SERVICES.items() for name, service in services.items()
}
IMAGES = {service["image"] for service in NAMED.values() if "build" not in service}


def of_each(services: dict[str, Service]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("service", services.values(), ids=services.keys())


OF_EACH_FILE = pytest.mark.parametrize("services", SERVICES.values(), ids=[file.parent.name for file in FILES])
OF_EACH_SERVER = of_each(
    {name: service for name, service in NAMED.items() if service["image"].startswith("valkey/") and "form" not in name}
)


class AnyRefusal(Refusal):
    status, code, message = 418, "ANY", "Any"


@OF_EACH_FILE
def test_only_the_balancer_is_published(services: dict[str, Service]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}

    assert published.pop("grafana", None) == services.get("grafana", {}).get("ports")
    assert published == {"balancer": ["${PUBLISH_ADDRESS:-127.0.0.1}:3000:3000"]}


def test_the_profile_publishes_grafana_besides() -> None:
    watching = {
        name: service.get("ports") for name, service in TOP_LEVEL.items() if service.get("profiles") == ["watch"]
    }

    assert watching == {"prometheus": None, "grafana": ["${PUBLISH_ADDRESS:-127.0.0.1}:3001:3000"]}


@pytest.mark.parametrize("image", sorted({*IMAGES, *BASES}))
def test_images_are_pinned_to_a_version(image: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image)


@of_each(NAMED)
def test_nothing_may_gain_privileges(service: Service) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service


@of_each(NAMED)
def test_nothing_is_run_by_root(service: Service) -> None:
    assert service["user"] in ("10001", "472", "haproxy", "nobody", "valkey")


@of_each(NAMED)
def test_nothing_may_have_processes_without_end(service: Service) -> None:
    assert service["pids_limit"] <= 512


@of_each(NAMED)
def test_nothing_shares_what_is_the_machines(service: Service) -> None:
    assert service.keys() & {"pid", "ipc", "network_mode", "devices", "userns_mode"} == set()
    assert [volume for volume in service["volumes"] if "docker.sock" in volume] == []


@of_each(NAMED)
def test_file_systems_are_read_only(service: Service) -> None:
    assert service["read_only"] is True


@OF_EACH_SERVER
def test_the_health_of_servers_is_checked(service: Service) -> None:
    assert service["healthcheck"]["test"][:2] == ["CMD", "valkey-cli"]


@OF_EACH_FILE
def test_the_health_of_the_balancer_is_checked(services: dict[str, Service]) -> None:
    assert services["balancer"]["healthcheck"]["test"][0] == "CMD"


@of_each(NAMED)
def test_what_is_mounted_is_there(service: Service) -> None:
    mounted = [volume.partition(":")[0] for volume in service["volumes"] if volume.startswith("/")]

    assert [path for path in mounted if not Path(path).exists()] == []


def test_the_image_checks_its_own_health_and_runs_as_nobody_special() -> None:
    assert "\nHEALTHCHECK " in DOCKERFILE
    assert "/livez" in DOCKERFILE
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_valkey_keeps_what_it_is_told() -> None:
    written = (DEPLOY / "valkey.conf").read_text()
    options = dict(line.split(maxsplit=1) for line in written.splitlines() if line and not line.startswith("#"))

    assert (options["appendonly"], options["maxmemory-policy"]) == ("yes", "noeviction")
    assert options["hash-max-listpack-value"] == str(MAX_METADATA_BYTES)


@OF_EACH_SERVER
def test_every_server_is_told_it_and_has_a_volume(service: Service) -> None:
    assert f"{DEPLOY / 'valkey.conf'}:/etc/valkey.conf:ro" in service["volumes"]
    assert [volume for volume in service["volumes"] if volume.endswith(":/data")] != []


@OF_EACH_FILE
def test_no_two_servers_share_a_volume(services: dict[str, Service]) -> None:
    volumes = [volume for service in services.values() for volume in service["volumes"] if volume.endswith(":/data")]

    assert len(set(volumes)) == len(volumes)


@OF_EACH_FILE
def test_redis_is_reached_by_the_service_alone(services: dict[str, Service]) -> None:
    reaching = {name for name, service in services.items() if "store" in service["networks"]}
    valkeys = {name for name, service in services.items() if service["image"].startswith("valkey/")}

    assert reaching == valkeys | {"service"}


def test_the_service_is_the_user_that_it_is_to_be() -> None:
    url = settings_of(TOP_LEVEL["service"]).redis_url
    assert url is not None

    assert url.get_secret_value().startswith("redis://session-service:${REDIS_PASSWORD:-session-service}@")
    assert TOP_LEVEL["redis"]["environment"]["REDIS_PASSWORD"] == "${REDIS_PASSWORD:-session-service}"


@OF_EACH_FILE
def test_the_environment_is_of_settings_that_the_service_knows(services: dict[str, Service]) -> None:
    environment = services["service"]["environment"]

    assert set(environment) <= {name.upper() for name in Settings.model_fields}
    assert settings_of(services["service"]).redis_url is not None


@OF_EACH_FILE
def test_the_image_starts_with_that_environment_though_others_reach_it(services: dict[str, Service]) -> None:
    (host,) = re.findall(r"\bHOST=(\S+)", DOCKERFILE)
    settings = settings_of(services["service"]).model_copy(update={"host": host})

    require_guarded(settings)
    with pytest.raises(CannotStart):
        require_guarded(settings.model_copy(update={"session_allow_anonymous": False}))


@OF_EACH_FILE
def test_the_service_is_told_servers_that_there_are(services: dict[str, Service]) -> None:
    url = settings_of(services["service"]).redis_url
    assert url is not None

    named = re.findall(r"[/,@]([\w-]+):\d+", url.get_secret_value())

    assert named != []
    assert set(named) <= set(services)


@pytest.mark.parametrize("file", FILES[1:], ids=lambda file: file.parent.name)
def test_servers_have_the_addresses_that_others_know_them_by(file: Path) -> None:
    told = yaml.safe_load(file.read_text())["x-hosts"]
    services = SERVICES[file]

    assert {name: services[name]["networks"]["store"]["ipv4_address"] for name in told} == told
    assert [services[name]["hostname"] for name in told] == [*told]
    assert [services[name]["extra_hosts"] for name in (*told, "service")] == [told] * (len(told) + 1)


def test_the_nodes_that_form_the_cluster_are_those_there_are() -> None:
    told = yaml.safe_load(FILES[2].read_text())["x-hosts"]

    assert SERVICES[FILES[2]]["form"]["command"][2:] == [f"{address}:6379" for address in told.values()]


@OF_EACH_FILE
def test_the_service_has_time_to_drain(services: dict[str, Service]) -> None:
    settings = settings_of(services["service"])
    grace_seconds = int(services["service"]["stop_grace_period"].removesuffix("s"))

    assert settings.session_drain_pause_seconds >= 3
    assert grace_seconds > settings.session_drain_pause_seconds + 2 * settings.session_drain_timeout_seconds


@pytest.mark.parametrize("path", REFUSALS, ids=lambda path: path.name)
def test_the_balancer_refuses_as_the_service_does(path: Path) -> None:
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    refusal = json.loads(body)

    assert re.fullmatch(rf"HTTP/1\.1 {path.stem} [A-Z][A-Za-z ]+", status_line)
    assert headers["Content-Type"].startswith("application/json")
    assert (headers["Content-Length"], headers["Cache-Control"]) == (str(len(body)), "no-store")
    assert SAFE.items() <= headers.items()
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


def settings_of(service: Service) -> Settings:
    told = {name.lower(): value for name, value in service["environment"].items() if value is not None}
    return Settings(**told)


def as_the_service_says(refusal: Refusal) -> object:
    body = refusal_response(refusal, "schema").body
    assert isinstance(body, bytes)
    return json.loads(body)


def labels_asked_for() -> set[str]:
    return {label for query in QUERIES for by in re.findall(r"by \(([^)]+)\)", query) for label in by.split(", ")}


def shape_of(value: object) -> object:
    """The members of a JSON value, whatever they hold."""
    return {name: shape_of(held) for name, held in value.items()} if isinstance(value, dict) else type(value)
