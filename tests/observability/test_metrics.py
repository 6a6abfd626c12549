"""Metrics do not depend on variables that are meant for other programs."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("folder", ["", "/nowhere"], ids=["empty", "missing"])
def test_an_inherited_folder_for_shared_metrics_is_ignored(folder: str, tmp_path: Path) -> None:
    program = (
        "from prometheus_client import generate_latest; from service.observability.metrics import Metrics;"
        "metrics = Metrics(); metrics.created.inc(); print(generate_latest(metrics.registry).decode())"
    )
    environment = {"PROMETHEUS_MULTIPROC_DIR": folder, "PYTHONPATH": ":".join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert "sessions_created_total 1.0" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []
