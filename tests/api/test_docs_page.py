"""The OpenAPI document and the documentation page over HTTP."""

import re
import sys

from service.api.openapi import document
from service.settings import Settings
from tests.conftest import HttpClient


async def test_the_document_is_served(client: HttpClient) -> None:
    response = await client.get("/openapi.json")

    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-cache"
    assert await response.json() == document(Settings())


async def test_the_page_has_a_strict_content_security_policy(client: HttpClient) -> None:
    response = await client.get("/docs")
    policy = response.headers["Content-Security-Policy"]

    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "http" not in policy


async def test_the_page_does_not_refer_to_other_hosts(client: HttpClient) -> None:
    page = await (await client.get("/docs")).text()
    script = await (await client.get("/docs/docs.js")).text()

    assert "//" not in page
    assert "http" not in script
    assert "validatorUrl: null" in script


async def test_all_files_of_the_page_are_served(client: HttpClient) -> None:
    page = await (await client.get("/docs")).text()
    names = re.findall(r'(?:src|href)="([^"]+)"', page)

    responses = {name: await client.get(f"/{name}") for name in names}

    assert {response.status for response in responses.values()} == {200}
    assert {name: response.content_type for name, response in responses.items()} == {
        "docs/favicon-32x32.png": "image/png",
        "docs/swagger-ui.css": "text/css",
        "docs/swagger-ui-bundle.js": "text/javascript",
        "docs/docs.js": "text/javascript",
        "openapi.json": "application/json",
    }


async def test_an_unchanged_file_is_not_sent_again(client: HttpClient) -> None:
    first = await client.get("/docs/swagger-ui.css")
    second = await client.get("/docs/swagger-ui.css", headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["Cache-Control"] == "public, max-age=86400"
    assert second.status == 304


def test_the_package_of_swagger_ui_is_not_imported() -> None:
    assert "swagger_ui" not in sys.modules
