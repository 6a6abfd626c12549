"""Read code blocks, tables, headings and links from the Markdown documents of this repository."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    language: str
    text: str


def document(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in this language, in order."""
    return [block.text for block in all_blocks(text) if block.language == language]


def all_blocks(text: str) -> list[Block]:
    return [Block(*found) for found in _FENCE.findall(text)]


def prose(text: str) -> str:
    """Return the text without its code blocks."""
    return _FENCE.sub("", text)


def section(text: str, heading: str) -> str:
    """Return the text from this heading to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"no heading {heading!r}"
    rest = text[found.end() :]
    return re.split(rf"^#{{1,{len(found[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def table_rows(text: str) -> list[list[str]]:
    """Return the rows of every table, without the header rows."""
    lines = text.splitlines()
    bodies = [line for line, before in zip(lines, ["", *lines], strict=False) if _is_body_row(line, before)]
    headers = {lines[number - 1] for number, line in enumerate(lines) if line.startswith("|--")}
    return [_cells(line) for line in bodies if line not in headers]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Return the targets of the links that stay in this repository."""
    return sorted({target for target in _LINK.findall(prose(text)) if "://" not in target})


def resolves(name: str, target: str) -> bool:
    """Return whether a link in the document `name` leads to an existing file and heading."""
    file, _, anchor = target.partition("#")
    path = ((ROOT / name).parent / file).resolve() if file else ROOT / name
    return path.exists() and (not anchor or anchor in anchors(path.read_text()))


def _is_body_row(line: str, before: str) -> bool:
    return line.startswith("|") and before.startswith("|") and not line.startswith("|--")


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in _CELL_BORDER.split(line)[1:-1]]
