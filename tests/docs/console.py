"""Check the `console` blocks of documents, which a test cannot run: every file, target, service and setting exists."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import yaml

from service.settings import Settings
from tests.docs.markdown import ROOT

_SETTINGS = {name.upper() for name in Settings.model_fields}
_COMPOSE_FILE = "docker-compose.yml"
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
    assert variables.keys() <= _SETTINGS | _compose_variables(), variables
    match list(words[len(variables) :]):
        case ["export", *assignments]:
            assert settings_of(assignments).keys() <= _SETTINGS
        case ["make", *targets]:
            assert set(targets) <= _TARGETS
        case ["docker", "compose", *rest]:
            assert variables.keys() <= _compose_variables()
            _check_compose(rest)
        case ["docker", "run", "--rm", image, *command]:
            assert image in {service.get("image") for service in _services("deploy/parts.yml").values()}
            check(command)
        case ["python", *rest]:
            _check_python(rest)
        case other:
            raise AssertionError(f"no check for {shlex.join(other)}")


def _check_python(words: list[str]) -> None:
    assert words[:2] == ["-m", "service"], words
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True, timeout=20)


def _check_compose(words: list[str]) -> None:
    profiles = [after for word, after in pairwise(words) if word == "--profile"]
    scaled = [after.partition("=")[0] for word, after in pairwise(words) if word == "--scale"]
    services = _services(_COMPOSE_FILE)
    assert {"up", "build", "down"} & set(words)
    assert set(scaled) <= services.keys()
    assert set(profiles) <= {profile for service in services.values() for profile in service.get("profiles", [])}


def _services(file: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / file).read_text())["services"]
    return services


def _compose_variables() -> set[str]:
    """Return the variables that the compose files read from the shell."""
    text = "".join((ROOT / file).read_text() for file in (_COMPOSE_FILE, "deploy/parts.yml"))
    return {*re.findall(r"\$\{([A-Z_]+)", text), *re.findall(r"^ +([A-Z_]+): *(?:#.*)?$", text, re.MULTILINE)}
