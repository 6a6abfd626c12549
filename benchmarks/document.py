"""Keep the tables and figures of the documents equal to the benchmark results.

A table in docs/performance.md has a name, and ends at `end`:

    <!-- table: requests-32 -->
    | request | req/s |
    | --- | ---: |
    | get 200 | 19,342 |
    <!-- end -->

A document quotes a cell with its table, row and column in a comment after the number and its unit:

    19,300 requests per second <!-- figure: requests-32 / get 200 / req/s -->

The quoted number may be rounded; it keeps at least two digits. Right-aligned columns hold the numbers. The other
columns name the row, separated by `, `.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import report

ROOT = Path(__file__).parent.parent
PERFORMANCE = ROOT / "docs" / "performance.md"
LATEST = Path(__file__).parent / "results" / "latest.json"

Cells = Mapping[tuple[str, str, str], float]
"""Numbers by table, row and column."""

_TABLE = re.compile(r"(?<=<!-- table: )([\w-]+) -->\n(.*?)(?=<!-- end -->)", re.DOTALL)
_QUOTE = re.compile(r"(\d[\d,]*(?:\.\d+)?)([^\d<]{0,40}<!--\s*figure:\s*([^>]+?)\s*-->)")


def documents() -> list[Path]:
    """Return the documents that may quote figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """Replace the tables of a document that are among `tables`."""

    def replaced(found: re.Match[str]) -> str:
        name, table = found.groups()
        return f"{name} -->\n{tables[name]}\n" if name in tables else f"{name} -->\n{table}"

    return _TABLE.sub(replaced, text)


def without_tables(text: str) -> str:
    return _TABLE.sub("", text)


def cells_of(text: str) -> Cells:
    """Return every number in the tables of a document."""
    return {
        (name, row, column): number
        for name, table in _TABLE.findall(text)
        for row, columns in _rows(table)
        for column, number in columns.items()
    }


def with_figures(text: str, cells: Cells) -> str:
    """Replace every quoted figure by its cell, rounded like the quote. Raise KeyError if there is no such cell."""

    def replaced(found: re.Match[str]) -> str:
        number, rest, reference = found.groups()
        table, row, column = re.split(r"\s+/\s+", reference)
        return _rounded_like(number, cells[table, " ".join(row.split()), column]) + rest

    return _QUOTE.sub(replaced, text)


def without_figures(text: str) -> str:
    return _QUOTE.sub("", text)


def update(results: report.Results) -> None:
    """Write the results into docs/performance.md and into every figure that a document quotes."""
    PERFORMANCE.write_text(with_tables(PERFORMANCE.read_text(), report.tables(results)))
    cells = cells_of(PERFORMANCE.read_text())
    for path in documents():
        path.write_text(with_figures(path.read_text(), cells))


def _rows(table: str) -> list[tuple[str, dict[str, float]]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    head, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = rule.index("---:")
    return [
        (
            ", ".join(row[:names]),
            {
                column: float(cell.replace(",", ""))
                for column, cell in zip(head[names:], row[names:], strict=True)
                if cell
            },
        )
        for row in rows
    ]


def _rounded_like(quote: str, number: float) -> str:
    """Round a number to the precision of a quoted one.

    >>> _rounded_like("19,300", 20350), _rounded_like("4.8", 4.96), _rounded_like("100", 104)
    ('20,400', '5.0', '100')
    """
    digits = quote.replace(",", "")
    whole, _, decimals = digits.partition(".")
    if decimals:
        return f"{number:,.{len(decimals)}f}"
    zeros = min(len(whole) - len(whole.rstrip("0")), max(len(whole) - 2, 0))
    return f"{round(number, -zeros):,.0f}"


if __name__ == "__main__":
    update(json.loads(Path(sys.argv[1]).read_text() if sys.argv[1:] else LATEST.read_text()))
