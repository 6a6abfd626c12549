"""Tests that every figure in a document equals the cell of docs/performance.md that it quotes.

benchmarks/document.py describes how a document quotes a figure. `python -m benchmarks.document` updates stale figures.
"""

import re
from pathlib import Path

import pytest

from benchmarks import document

UNIT = r"(?:µs|MiB|req/s|(?:requests|reads|heartbeats|renewals|creations)\s+(?:per|a)\s+second)"
FIGURE = re.compile(rf"\b\d[\d,.]*\s*{UNIT}")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
CELLS = document.cells_of(document.PERFORMANCE.read_text())

in_every_document = pytest.mark.parametrize("path", document.documents(), ids=lambda path: path.name)


@in_every_document
def test_quoted_figures_equal_the_measured_ones(path: Path) -> None:
    text = path.read_text()

    assert document.with_figures(text, CELLS) == text


@in_every_document
def test_every_figure_names_its_source(path: Path) -> None:
    text = document.without_figures(document.without_tables(path.read_text()))

    assert FIGURE.findall(CODE.sub("", text)) == []


@pytest.mark.parametrize(
    ("quote", "measured", "expected"),
    [("19,300", 20350, "20,400"), ("4.8", 4.96, "5.0"), ("100", 104, "100"), ("7", 6.6, "7"), ("72", 71.6, "72")],
)
def test_an_update_keeps_the_precision_of_a_figure(quote: str, measured: float, expected: str) -> None:
    text = f"{quote} reads per second <!-- figure: requests / get 200 /\nreq/s -->"

    updated = document.with_figures(text, {("requests", "get 200", "req/s"): measured})

    assert updated == text.replace(quote, expected)


def test_an_update_replaces_only_the_measured_tables() -> None:
    text = "<!-- table: a -->\nold\n<!-- end -->\n<!-- table: b -->\nold\n<!-- end -->\n"

    assert document.with_tables(text, {"a": "new"}) == text.replace("old", "new", 1)


def test_a_figure_without_a_cell_is_an_error() -> None:
    with pytest.raises(KeyError):
        document.with_figures("5 µs <!-- figure: requests / get 300 / req/s -->", CELLS)
