"""Run JavaScript with Node.js against a service."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.docs.markdown import ROOT

NODE = shutil.which("node")
API_CLIENT = ROOT / "node_modules" / "@elizaos" / "api-client" / "dist" / "index.js"
TIMEOUT_SECONDS = 50

needs_node = pytest.mark.skipif(NODE is None, reason="needs Node.js 20: apt-get install nodejs, or brew install node")
needs_api_client = pytest.mark.skipif(
    NODE is None or not API_CLIENT.exists(), reason="needs Node.js 20 and @elizaos/api-client: make api-client"
)


async def run_node(file: Path, code: str, *arguments: str) -> Any:
    """Run a module, and return the value that its code returns. `arguments` holds its arguments."""
    _write_module(file, code)
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, str(file), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(TIMEOUT_SECONDS):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


def _write_module(file: Path, code: str) -> None:
    file.write_text(
        "const run = async (args) => {\n" + code + "\n};\n"
        "const result = await run(process.argv.slice(2));\n"
        "console.log(JSON.stringify(result === undefined ? null : result));\n"
    )


def url_of(client: Any) -> str:
    """Return the URL of the service in the test process, without a path."""
    return str(client.make_url("")).rstrip("/")
