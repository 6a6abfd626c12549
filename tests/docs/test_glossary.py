"""docs/glossary.md is sorted and defines each term once."""

from tests.docs import markdown

TERMS = [term.lower() for term, _ in markdown.table_rows(markdown.document("docs/glossary.md"))]


def test_the_terms_are_sorted() -> None:
    assert sorted(set(TERMS)) == TERMS
