"""Merging a patch into metadata, apart from any store."""

from typing import Any

import pytest

from service.errors import InvalidRequest
from service.sessions.metadata import apply_patch, merge

RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
"""The examples of its appendix that are about objects: what is there, the patch, and the outcome."""


@pytest.mark.parametrize(("target", "patch", "outcome"), RFC_7396)
def test_it_merges_as_the_examples_of_the_standard(target: Any, patch: Any, outcome: Any) -> None:
    assert merge(target, patch) == outcome


@pytest.mark.parametrize(
    ("target", "patch", "outcome"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({}, {"a": None}, {}),
        ({"a": 1}, {"a": {"b": None}}, {"a": {}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": 1}}),
        ({"a": 1}, {"a": [None, {"b": None}]}, {"a": [None, {"b": None}]}),
        ({"": 1, "é": 2}, {"": None}, {"é": 2}),
    ],
)
def test_it_merges_at_the_edges_too(target: Any, patch: Any, outcome: Any) -> None:
    assert merge(target, patch) == outcome


def test_what_is_there_is_not_touched() -> None:
    target = {"a": {"b": 1}}

    merge(target, {"a": {"b": None}})

    assert target == {"a": {"b": 1}}


def test_what_the_patch_does_not_name_is_kept_as_it_was() -> None:
    stored = b'{"n":18446744073709551615,"f":1.7976931348623157e+308,"s":"\\u0000","l":[]}'

    assert apply_patch(stored, {"a": 1}) == stored[:-1] + b',"a":1}'


def test_a_member_keeps_its_place() -> None:
    assert apply_patch(b'{"a":1,"b":2}', {"a": 3}) == b'{"a":3,"b":2}'


def test_what_is_too_large_afterwards_is_refused() -> None:
    half = "x" * 6000

    with pytest.raises(InvalidRequest, match="metadata: must be at most 10240 bytes as JSON, not 12015"):
        apply_patch(b'{"a":"%b"}' % half.encode(), {"b": half})


def test_what_was_too_large_may_be_made_smaller() -> None:
    assert apply_patch(b'{"a":"%b"}' % (b"x" * 20_000), {"a": None}) == b"{}"
