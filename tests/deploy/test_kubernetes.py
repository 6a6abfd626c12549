"""What lies in deploy/kubernetes: manifests that fit one another and the service, and a page that is true to both."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "kubernetes"
PAGE = (FOLDER / "README.md").read_text()
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: dict[str, dict[str, Any]] = {
    manifest["kind"]: manifest
    for file in sorted(FOLDER.glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
}
POD = MANIFESTS["Deployment"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]
LABELS = {"app.kubernetes.io/name": "session-service"}
ENVIRONMENT = {variable["name"]: variable.get("value") for variable in CONTAINER["env"]}
PROBES = {name: CONTAINER[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
QUERIES = re.findall(r"`((?:sum|max|histogram_quantile)\b[^`]*)`", PAGE)


def settings() -> Settings:
    told = {**ENVIRONMENT, "REDIS_URL": MANIFESTS["Secret"]["stringData"]["REDIS_URL"]}
    return Settings(**{name.lower(): value for name, value in told.items()})


def test_each_kind_is_there_once() -> None:
    assert sorted(MANIFESTS) == [
        "Deployment",
        "HorizontalPodAutoscaler",
        "Kustomization",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Secret",
        "Service",
        "ServiceMonitor",
    ]


def test_what_any_cluster_takes_is_applied_together() -> None:
    optional = {"kustomization.yaml", "secret.example.yaml", "servicemonitor.yaml"}

    assert set(KUSTOMIZATION["resources"]) == {file.name for file in FOLDER.glob("*.yaml")} - optional


def test_the_image_that_is_run_is_the_one_that_is_said_where_it_is() -> None:
    [image] = KUSTOMIZATION["images"]

    assert CONTAINER["image"] == image["name"]
    assert f"{image['newName']}:{image['newTag']}" in PAGE


@pytest.mark.parametrize(
    "selected",
    [
        MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        POD["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ],
)
def test_selectors_select_the_pods(selected: dict[str, str]) -> None:
    assert selected == LABELS == POD["metadata"]["labels"]


def test_the_monitor_selects_the_service() -> None:
    assert MANIFESTS["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == MANIFESTS["Service"]["metadata"]["labels"]


def test_the_autoscaler_scales_the_deployment_and_nothing_else_says_how_many() -> None:
    target = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]

    assert (target["kind"], target["name"]) == ("Deployment", MANIFESTS["Deployment"]["metadata"]["name"])
    assert "replicas" not in MANIFESTS["Deployment"]["spec"]
    assert "cpu" in CONTAINER["resources"]["requests"]  # of which it takes a share


def test_ports_go_by_one_name() -> None:
    [port] = CONTAINER["ports"]
    [of_the_service] = MANIFESTS["Service"]["spec"]["ports"]
    [endpoint] = MANIFESTS["ServiceMonitor"]["spec"]["endpoints"]
    [let_in] = MANIFESTS["NetworkPolicy"]["spec"]["ingress"]

    assert str(port["containerPort"]) == ENVIRONMENT["PORT"]
    assert {probe["httpGet"]["port"] for probe in PROBES.values()} == {port["name"]}
    assert [of_the_service["targetPort"], of_the_service["name"], endpoint["port"]] == [port["name"]] * 3
    assert [allowed["port"] for allowed in let_in["ports"]] == [port["name"]]


def test_a_pod_reaches_redis_sentinels_and_dns() -> None:
    out = [port["port"] for rule in MANIFESTS["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]]

    assert sorted(out) == [53, 53, 6379, 26379]


def test_the_environment_is_of_settings_that_the_service_knows() -> None:
    assert set(ENVIRONMENT) <= {name.upper() for name in Settings.model_fields}
    assert settings().host == "0.0.0.0"


def test_the_url_is_from_the_secret_and_has_no_password() -> None:
    [url] = [variable for variable in CONTAINER["env"] if variable["name"] == "REDIS_URL"]
    reference = url["valueFrom"]["secretKeyRef"]
    secret = MANIFESTS["Secret"]

    assert reference["name"] == secret["metadata"]["name"]
    assert "@" not in secret["stringData"][reference["key"]]


def test_a_pod_has_time_to_drain() -> None:
    told = settings()
    at_the_worst = told.session_drain_pause_seconds + 2 * told.session_drain_timeout_seconds

    assert told.session_drain_pause_seconds >= 5
    assert POD["spec"]["terminationGracePeriodSeconds"] > at_the_worst
    assert f"`SESSION_DRAIN_PAUSE_SECONDS` ({told.session_drain_pause_seconds:g})" in PAGE


@pytest.mark.parametrize("name", ["startup", "liveness"])
def test_whether_it_lives_has_nothing_to_do_with_redis(name: str) -> None:
    assert PROBES[name]["httpGet"]["path"] == "/livez"


def test_whether_it_is_ready_is_waited_for_longer_than_for_redis() -> None:
    assert PROBES["readiness"]["httpGet"]["path"] == "/readyz"
    assert PROBES["readiness"]["timeoutSeconds"] > settings().session_store_timeout_seconds
    scrape = MANIFESTS["ServiceMonitor"]["spec"]["endpoints"][0]["scrapeTimeout"]
    assert int(scrape.removesuffix("s")) > settings().session_store_timeout_seconds


@pytest.mark.parametrize(
    "path",
    [
        *sorted({probe["httpGet"]["path"] for probe in PROBES.values()}),
        MANIFESTS["ServiceMonitor"]["spec"]["endpoints"][0]["path"],
    ],
)
async def test_what_is_probed_and_scraped_is_served(client: HttpClient, path: str) -> None:
    assert (await client.get(path)).status == 200


def test_a_pod_may_do_nothing_that_it_need_not() -> None:
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert POD["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_pod_runs_as_the_user_of_the_image() -> None:
    dockerfile = (FOLDER.parent / "Dockerfile").read_text()

    assert f"\nUSER {POD['spec']['securityContext']['runAsUser']}\n" in dockerfile


def test_no_variables_are_made_up_that_the_service_would_warn_of() -> None:
    assert POD["spec"]["enableServiceLinks"] is False


async def test_the_page_watches_what_the_service_serves(client: HttpClient) -> None:
    await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    served = await (await client.get("/metrics")).text()
    samples = {sample.name for family in text_string_to_metric_families(served) for sample in family.samples}

    assert len(QUERIES) == 8
    assert {name for query in QUERIES for name in re.findall(r"\bsessions_\w+", query)} <= samples


@pytest.mark.parametrize("url", re.findall(r"`(rediss?(?:\+\w+)?://[^`…]+)`", PAGE))
def test_the_urls_of_the_page_are_understood(url: str) -> None:
    assert Settings(redis_url=url).redis_url is not None


def test_the_page_applies_the_folder_and_names_what_is_in_it() -> None:
    files = set(re.findall(r"\| `([\w.]+\.yaml)` \|", PAGE))

    assert "\nkubectl -n sessions apply -k deploy/kubernetes\n" in PAGE
    assert files == {file.name for file in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
