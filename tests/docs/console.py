"""Check the `console` blocks of documents, which a test cannot run: every file, target, service and setting exists."""

import re
import shlex
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from benchmarks.__main__ import parse_options
from service.api.openapi import document
from service.cli.arguments import parse
from service.settings import Settings
from tests.docs.markdown import ROOT

_SETTINGS = {name.upper() for name in Settings.model_fields}
_COMPOSE_FILE = "docker-compose.yml"
_MANIFESTS = ROOT / "deploy" / "kubernetes"
_REDIS_CLI = re.compile(
    r"--cluster check \S+|--latency|--latency-history -i \d+|--memkeys|--rdb \S+|-h \S+ [A-Z]+ .+", re.DOTALL
)
"""Commands that need redis-cli itself, and commands for several servers (tests/docs/test_operations.py runs these)."""

_ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)
_TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(block: str) -> list[list[str]]:
    """Return the words of each command, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def settings_of(words: Sequence[str]) -> dict[str, str]:
    """Return the variables that are set before the command."""
    found: dict[str, str] = {}
    for word in words:
        assignment = _ASSIGNMENT.fullmatch(word)
        if assignment is None:
            break
        found[assignment[1]] = assignment[2]
    return found


def check(words: Sequence[str]) -> None:
    """Raise AssertionError if the command names something that does not exist."""
    variables = settings_of(words)
    assert {name for name in variables if not name.startswith("OTEL_")} <= _SETTINGS | _compose_variables()
    match list(words[len(variables) :]):
        case ["export", *assignments]:
            assert settings_of(assignments).keys() <= _SETTINGS
        case ["make", "bench", options]:
            parse_options(shlex.split(options.removeprefix("BENCH=")))
        case ["make", *targets]:
            assert set(targets) <= _TARGETS
        case ["docker", "compose", *rest]:
            assert variables.keys() <= _compose_variables()
            _check_compose(rest)
        case ["docker", "build", "-f", file, "-t", _, "."]:
            assert (ROOT / file).is_file()
        case ["docker", "push", _]:
            pass
        case ["docker", "run", "--rm", image, *command]:
            assert image in {service.get("image") for service in _services("deploy/parts.yml").values()}
            check(command)
        case ["kubectl", *rest]:
            _check_kubectl(rest)
        case ["python" | ".venv/bin/python", "-m", "service", *rest]:
            parse(rest)
        case ["redis-cli", *rest]:
            assert _REDIS_CLI.fullmatch(" ".join(rest)), rest
        case ["curl", "-N", url]:
            path = url.partition("?")[0].replace("$API/sessions/$ID", "/api/messaging/sessions/{sessionId}")
            assert path in document(Settings())["paths"]
        case ["valkey-server", *options]:
            assert set(options[::2]) <= {"--dir", "--dbfilename", "--appendonly"}
        case ["pip", "install", package]:
            assert package in _packages()
        case other:
            raise AssertionError(f"no check for {shlex.join(other)}")


def _check_compose(words: list[str]) -> None:
    files = _values_of("-f", words) or [_COMPOSE_FILE]
    services = _services(files[0])
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    scaled = {value.partition("=")[0] for value in _values_of("--scale", words)}
    [verb] = [word for word in words if word in ("up", "build", "down", "kill", "exec")]
    operands = words[words.index(verb) + 1 :]
    named = {"kill": operands, "exec": operands[:1]}.get(verb, [])
    assert {*scaled, *named} <= services.keys()
    assert set(_values_of("--profile", words)) <= profiles


def _check_kubectl(words: list[str]) -> None:
    paths = [*_values_of("-k", words), *_values_of("-f", words)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    deployments = [word.partition("/")[2] for word in words if re.match(r"(deploy|deployment)/", word)]
    assert set(deployments) <= {*_names_of("Deployment"), *(path.partition("/")[2] for path in paths)}
    if "python" in words:
        check(words[words.index("python") :])


def _names_of(kind: str) -> set[str]:
    manifests = [yaml.safe_load(path.read_text()) for path in _MANIFESTS.glob("*.yaml")]
    return {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == kind}


def _packages() -> set[str]:
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["project"]
    return {f"{project['name']}[{extra}]" for extra in project["optional-dependencies"]}


def _values_of(option: str, words: Sequence[str]) -> list[str]:
    return [value for word, value in pairwise(words) if word == option]


def _services(file: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / file).read_text())["services"]
    return services


def _compose_variables() -> set[str]:
    """Return the variables that the compose files read from the shell."""
    text = "".join((ROOT / file).read_text() for file in (_COMPOSE_FILE, "deploy/parts.yml"))
    return {*re.findall(r"\$\{([A-Z_]+)", text), *re.findall(r"^ +([A-Z_]+): *(?:#.*)?$", text, re.MULTILINE)}
