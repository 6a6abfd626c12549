"""Check the documents for broken links, invalid code blocks and commands that do not exist."""

import json
import shlex

import pytest

from tests.docs import console, markdown

DOCUMENTS = [
    "README.md",
    "docs/api.md",
    "docs/architecture.md",
    "docs/authentication.md",
    "docs/configuration.md",
    "docs/contributing.md",
    "docs/deployment.md",
    "docs/errors.md",
    "docs/glossary.md",
    "docs/messages.md",
    "docs/observability.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/rate-limits.md",
    "docs/redis.md",
    "docs/reliability.md",
    "docs/sessions.md",
    "SECURITY.md",
    "deploy/kubernetes/README.md",
]
TESTED_LANGUAGES = {"console", "json", "python", "sh", "text", "typescript", "yaml"}
COMMANDS = {
    shlex.join(words): words
    for name in DOCUMENTS
    for block in markdown.blocks(markdown.document(name), "console")
    for words in console.commands(block)
}

in_every_document = pytest.mark.parametrize("name", DOCUMENTS)


@in_every_document
def test_a_test_covers_every_kind_of_code_block(name: str) -> None:
    languages = {block.language for block in markdown.all_blocks(markdown.document(name))}

    assert languages <= TESTED_LANGUAGES


@in_every_document
def test_json_blocks_are_valid(name: str) -> None:
    for block in markdown.blocks(markdown.document(name), "json"):
        json.loads(block)


@in_every_document
def test_links_resolve(name: str) -> None:
    targets = markdown.links(markdown.document(name))

    assert [target for target in targets if not markdown.resolves(name, target)] == []


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_names_only_what_exists(words: list[str]) -> None:
    console.check(words)
