"""Tests that the Kubernetes manifests match each other, the service and their README."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.conftest import HttpClient

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "kubernetes"
README = (FOLDER / "README.md").read_text()
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


def settings() -> Settings:
    environment = {**ENVIRONMENT, "REDIS_URL": MANIFESTS["Secret"]["stringData"]["REDIS_URL"]}
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        return Settings(**{name.lower(): value for name, value in environment.items()})


def test_there_is_one_manifest_of_each_kind() -> None:
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


def test_kustomization_applies_everything_but_the_optional_files() -> None:
    optional = {"kustomization.yaml", "secret.example.yaml", "servicemonitor.yaml"}

    assert set(KUSTOMIZATION["resources"]) == {file.name for file in FOLDER.glob("*.yaml")} - optional


def test_kustomization_sets_the_image_of_the_deployment() -> None:
    [image] = KUSTOMIZATION["images"]

    assert CONTAINER["image"] == image["name"]
    assert f"{image['newName']}:{image['newTag']}" in README


@pytest.mark.parametrize(
    "selector",
    [
        MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        POD["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ],
)
def test_selectors_match_the_labels_of_pods(selector: dict[str, str]) -> None:
    assert selector == LABELS == POD["metadata"]["labels"]


def test_the_service_monitor_selects_the_service() -> None:
    assert MANIFESTS["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == MANIFESTS["Service"]["metadata"]["labels"]


def test_only_the_autoscaler_sets_the_number_of_replicas() -> None:
    target = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]

    assert (target["kind"], target["name"]) == ("Deployment", MANIFESTS["Deployment"]["metadata"]["name"])
    assert "replicas" not in MANIFESTS["Deployment"]["spec"]
    assert "cpu" in CONTAINER["resources"]["requests"]  # the autoscaler computes its target from this


def test_all_manifests_use_the_same_port_name() -> None:
    [port] = CONTAINER["ports"]
    [service_port] = MANIFESTS["Service"]["spec"]["ports"]
    [endpoint] = MANIFESTS["ServiceMonitor"]["spec"]["endpoints"]
    [ingress_rule] = MANIFESTS["NetworkPolicy"]["spec"]["ingress"]

    assert str(port["containerPort"]) == ENVIRONMENT["PORT"]
    assert {probe["httpGet"]["port"] for probe in PROBES.values()} == {port["name"]}
    assert [service_port["targetPort"], service_port["name"], endpoint["port"]] == [port["name"]] * 3
    assert [allowed["port"] for allowed in ingress_rule["ports"]] == [port["name"]]


def test_pods_may_reach_only_redis_sentinel_and_dns() -> None:
    ports = [port["port"] for rule in MANIFESTS["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]]

    assert sorted(ports) == [53, 53, 6379, 26379]


def test_the_environment_contains_only_known_settings() -> None:
    assert set(ENVIRONMENT) <= {name.upper() for name in Settings.model_fields}
    assert settings().host == "0.0.0.0"


def test_redis_url_comes_from_the_secret_and_the_example_has_no_password() -> None:
    [url] = [variable for variable in CONTAINER["env"] if variable["name"] == "REDIS_URL"]
    reference = url["valueFrom"]["secretKeyRef"]
    secret = MANIFESTS["Secret"]

    assert reference["name"] == secret["metadata"]["name"]
    assert "@" not in secret["stringData"][reference["key"]]


def test_the_grace_period_is_longer_than_the_drain() -> None:
    drain_pause_seconds = settings().session_drain_pause_seconds
    longest_drain_seconds = drain_pause_seconds + 2 * settings().session_drain_timeout_seconds

    assert drain_pause_seconds >= 5
    assert POD["spec"]["terminationGracePeriodSeconds"] > longest_drain_seconds
    assert f"`SESSION_DRAIN_PAUSE_SECONDS` ({drain_pause_seconds:g})" in README


@pytest.mark.parametrize("name", ["startup", "liveness"])
def test_startup_and_liveness_probes_do_not_depend_on_redis(name: str) -> None:
    assert PROBES[name]["httpGet"]["path"] == "/livez"


def test_readiness_and_scrape_timeouts_exceed_the_redis_timeout() -> None:
    assert PROBES["readiness"]["httpGet"]["path"] == "/readyz"
    assert PROBES["readiness"]["timeoutSeconds"] > settings().session_store_timeout_seconds
    scrape_timeout = MANIFESTS["ServiceMonitor"]["spec"]["endpoints"][0]["scrapeTimeout"]
    assert int(scrape_timeout.removesuffix("s")) > settings().session_store_timeout_seconds


@pytest.mark.parametrize(
    "path",
    [
        *sorted({probe["httpGet"]["path"] for probe in PROBES.values()}),
        MANIFESTS["ServiceMonitor"]["spec"]["endpoints"][0]["path"],
    ],
)
async def test_probed_and_scraped_paths_exist(client: HttpClient, path: str) -> None:
    assert (await client.get(path)).status == 200


def test_pods_run_with_minimal_privileges() -> None:
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert POD["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_pods_run_as_the_user_of_the_image() -> None:
    dockerfile = (FOLDER.parent / "Dockerfile").read_text()

    assert f"\nUSER {POD['spec']['securityContext']['runAsUser']}\n" in dockerfile


def test_service_links_do_not_add_session_variables() -> None:
    assert POD["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("url", re.findall(r"`(rediss?(?:\+\w+)?://[^`…]+)`", README))
def test_redis_urls_in_the_readme_are_valid(url: str) -> None:
    assert Settings(redis_url=url).redis_url is not None


def test_the_readme_lists_every_manifest() -> None:
    files = set(re.findall(r"\| `([\w.]+\.yaml)` \|", README))

    assert "\nkubectl -n sessions apply -k deploy/kubernetes\n" in README
    assert files == {file.name for file in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
