"""Merging patches into metadata, without a store."""

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
"""The examples of RFC 7396 with objects: the target, the patch and the result."""


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_merging_follows_the_examples_of_rfc_7396(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({}, {"a": None}, {}),
        ({"a": 1}, {"a": {"b": None}}, {"a": {}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": 1}}),
        ({"a": 1}, {"a": [None, {"b": None}]}, {"a": [None, {"b": None}]}),
        ({"": 1, "é": 2}, {"": None}, {"é": 2}),
    ],
)
def test_merging_handles_edge_cases(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


def test_merging_does_not_modify_the_target() -> None:
    target = {"a": {"b": 1}}

    merge(target, {"a": {"b": None}})

    assert target == {"a": {"b": 1}}


def test_members_that_the_patch_does_not_name_stay_as_they_were() -> None:
    stored = b'{"n":18446744073709551615,"f":1.7976931348623157e+308,"s":"\\u0000","l":[]}'

    assert apply_patch(stored, {"a": 1}) == stored[:-1] + b',"a":1}'


def test_a_changed_member_keeps_its_position() -> None:
    assert apply_patch(b'{"a":1,"b":2}', {"a": 3}) == b'{"a":3,"b":2}'


def test_a_result_that_is_too_large_is_rejected() -> None:
    half = "x" * 6000

    with pytest.raises(InvalidRequest, match="metadata: must be at most 10240 bytes as JSON, not 12015"):
        apply_patch(b'{"a":"%b"}' % half.encode(), {"b": half})


def test_metadata_that_was_too_large_may_become_smaller() -> None:
    assert apply_patch(b'{"a":"%b"}' % (b"x" * 20_000), {"a": None}) == b"{}"
