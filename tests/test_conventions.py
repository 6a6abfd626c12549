"""Enforce the conventions of code and documents that a program can check. See docs/contributing.md."""

import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SERVICE = ROOT / "service"
PYTHON_FOLDERS = ("service", "tests", "benchmarks")

IMPORT_ORDER = (
    "timestamps",
    "identifiers",
    "end_reasons",
    "errors",
    "shared_secret",
    "settings",
    "observability",
    "redis_client",
    "sessions",
    "messages",
    "live",
    "maintenance",
    "auth",
    "rate_limit",
    "api",
    "app",
    "process",
    "cli",
    "__main__",
)
"""A module imports only from its own package and from packages further up in this list."""

MAX_FILE_LINES = 400
MAX_README_LINES = 200
MAX_SERVICE_FILES = 130
MAX_SENTENCE_WORDS = 35

RETIRED_NAMES = frozenset(
    (
        "lane",
        "lanes",
        "errand",
        "errands",
        "dial",
        "dialer",
        "heed",
        "heeded",
        "heeds",
        "vouch",
        "vouched",
        "told",
        "untold",
        "tells",
        "remembered",
        "uncounted",
        "wish",
        "wished",
        "census",
        "tally",
        "whose",
        "wanted",
        "asked",
        "said",
        "delist",
        "enlist",
        "delisting",
        "relisting",
        "admission",
        "annotate",
        "unreplicated",
        "carried",
    )
)
"""Words of the former vocabulary, as parts of identifiers and file names. LANGUAGE.md has their replacements."""

RETIRED_PROSE = re.compile(
    r"\b(whoever|whatever|whomever|nobody|nobody's|somebody|thereof|heeds?|heeded|errands?|lanes?|vouch(?:es|ed)?"
    r"|tells?|told|delist(?:s|ed)?|enlist(?:s|ed)?|relist(?:s|ed)?|of which each|is (?:gone|held) about)\b",
    re.IGNORECASE,
)


class Text(NamedTuple):
    """A piece of prose and where it is."""

    place: str
    text: str


@cache
def python_files(*folders: str) -> tuple[Path, ...]:
    return tuple(path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))


@cache
def documents() -> tuple[Path, ...]:
    return (
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "deploy").rglob("*.md")),
    )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


# Structure


def test_packages_import_only_packages_further_up() -> None:
    assert [edge for edge in imports() if position(edge[1]) > position(edge[0])] == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = defaultdict[str, set[str]](set)
    for importer, imported in imports():
        graph[importer].add(imported)

    assert circle_in(graph) == []


def test_every_top_level_module_has_a_place_in_the_import_order() -> None:
    found = {path.stem for path in SERVICE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert found - {"__init__"} == set(IMPORT_ORDER)


@pytest.mark.parametrize("path", [*python_files(*PYTHON_FOLDERS), *SERVICE.rglob("*.lua")], ids=name_of)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


def test_the_service_has_few_files() -> None:
    assert len(python_files("service")) <= MAX_SERVICE_FILES


def test_no_two_classes_of_the_service_share_a_name() -> None:
    names = Counter(
        node.name
        for path in python_files("service")
        for node in syntax_tree(path).body
        if isinstance(node, ast.ClassDef)
    )

    assert [name for name, number in names.items() if number > 1] == []


def imports() -> Iterator[tuple[str, str]]:
    """Each import between modules of the service, also within functions, as importer and imported."""
    modules = {module_of(path) for path in python_files("service")}
    for path in python_files("service"):
        for node in ast.walk(syntax_tree(path)):
            for target in targets_of(node):
                imported = target if target in modules else target.rpartition(".")[0]
                if imported in modules and imported != module_of(path):
                    yield module_of(path), imported


def targets_of(node: ast.AST) -> Sequence[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), names=names):
            return [f"{module}.{alias.name}" for alias in names]
        case _:
            return []


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def position(module: str) -> int:
    parts = module.split(".")
    return IMPORT_ORDER.index(parts[1]) if len(parts) > 1 else -1


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one import circle, or nothing."""
    finished = set[str]()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in finished:
            return []
        for imported in sorted(graph.get(module, ())):
            if found := visit(imported, [*path, module]):
                return found
        finished.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


# Names and prose


@pytest.mark.parametrize("path", python_files(*PYTHON_FOLDERS), ids=name_of)
def test_no_retired_word_is_part_of_a_name(path: Path) -> None:
    names = {path.stem} | {
        token.string
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.NAME
    }

    assert sorted(name for name in names if RETIRED_NAMES & words_of(name)) == []


@pytest.mark.parametrize("path", python_files(*PYTHON_FOLDERS), ids=name_of)
def test_no_retired_word_is_in_comments_and_docstrings(path: Path) -> None:
    assert retired_in([*docstrings_in(path), *comments_in(path)]) == []


@pytest.mark.parametrize("path", [*SERVICE.rglob("*.lua"), *SERVICE.rglob("*.yaml")], ids=name_of)
def test_no_retired_word_is_in_scripts_and_in_the_openapi_document(path: Path) -> None:
    assert retired_in(lines_of(path)) == []


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_no_retired_word_is_in_a_document(path: Path) -> None:
    assert retired_in(lines_of(path)) == []


@pytest.mark.parametrize("path", python_files(*PYTHON_FOLDERS), ids=name_of)
def test_sentences_in_docstrings_are_short(path: Path) -> None:
    assert long_sentences_in(docstrings_in(path)) == []


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_sentences_in_documents_are_short(path: Path) -> None:
    assert long_sentences_in(paragraphs_of(path)) == []


def words_of(name: str) -> set[str]:
    """`StoreWatch_x` as store, watch, x."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def docstrings_in(path: Path) -> list[Text]:
    """Docstrings, and the strings below attributes and constants that describe them."""
    return [
        Text(f"{name_of(path)}:{node.lineno}", node.value.value)
        for node in ast.walk(syntax_tree(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


def comments_in(path: Path) -> list[Text]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return [Text(f"{name_of(path)}:{t.start[0]}", t.string) for t in tokens if t.type == tokenize.COMMENT]


def lines_of(path: Path) -> list[Text]:
    return [Text(f"{name_of(path)}:{number}", line) for number, line in enumerate(path.read_text().splitlines(), 1)]


def retired_in(texts: Sequence[Text]) -> list[str]:
    return [f"{place}: {found[0]}" for place, text in texts if (found := RETIRED_PROSE.search(text))]


def paragraphs_of(path: Path) -> list[Text]:
    """The prose of a Markdown file: without code blocks, tables and HTML comments, each list item on its own."""
    prose = re.sub(r"^```.*?^```|^\|.*?$|<!--.*?-->|^    .*?$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [Text(name_of(path), part) for part in re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) ", prose)]


def long_sentences_in(texts: Sequence[Text]) -> list[str]:
    return [
        f"{place}: {sentence.strip()[:80]}"
        for place, text in texts
        for block in re.split(r"\n\s*\n|\n\s*[-*] |^\|.*?$", text, flags=re.MULTILINE)
        for sentence in re.split(r"(?<=[.!?])\s+|:\s*\n| · ", block)
        if len(sentence.split()) > MAX_SENTENCE_WORDS
    ]


# Documents


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES
