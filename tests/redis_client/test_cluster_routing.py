"""Where commands go in a cluster, and what becomes of them where a server sends them on."""

import pytest
from redis.exceptions import ResponseError

from service.redis_client.cluster_routing import (
    RoutedCommand,
    group_by_node,
    ordered_groups,
    redirected,
    route_commands,
    slot_of,
)

ONE, OTHER = ("one", 7001), ("other", 7002)


def test_a_command_goes_by_the_hash_tag_of_its_key() -> None:
    routed_commands = route_commands(
        [("HMGET", "session:{ab}:abc", "x"), ("ZCARD", "sessions:{ab}:created"), ("ZCARD", "{cd}")]
    )

    assert routed_commands == [
        RoutedCommand(slot_of("ab"), [0]),
        RoutedCommand(slot_of("ab"), [1]),
        RoutedCommand(slot_of("cd"), [2]),
    ]


@pytest.mark.parametrize(
    "command", [("EVALSHA", "sha", 1, "{ab}", "x"), ("EVAL", "text", 2, "{ab}", "{ab}"), ("OBJECT", "ENCODING", "{ab}")]
)
def test_the_key_of_a_command_is_not_always_its_second_word(command: tuple[str | int, ...]) -> None:
    assert route_commands([command]) == [RoutedCommand(slot_of("ab"), [0])]


def test_a_command_without_a_key_goes_along_with_the_one_before_it() -> None:
    assert route_commands([("ZCARD", "ab"), ("TIME",), ("ZCARD", "cd"), ("TIME",)]) == [
        RoutedCommand(slot_of("ab"), [0, 1]),
        RoutedCommand(slot_of("cd"), [2, 3]),
    ]


def test_what_has_to_be_in_order_goes_slot_by_slot() -> None:
    commands = [("GET", "{a}1"), ("GET", "{a}2"), ("GET", "{b}"), ("GET", "{a}3")]

    assert ordered_groups(commands) == [commands[:2], commands[2:3], commands[3:]]


def test_a_script_is_the_last_of_its_turn() -> None:
    commands = [("GET", "{a}1"), ("EVALSHA", "sha", 1, "{a}2"), ("EVALSHA", "sha", 1, "{a}3")]

    assert ordered_groups(commands) == [commands[:2], commands[2:]]


def test_errands_to_one_server_make_one_trip() -> None:
    routed_commands = [RoutedCommand(1, [0]), RoutedCommand(2, [1]), RoutedCommand(3, [2], is_asking=True)]

    assert group_by_node(routed_commands, [ONE, ONE, ONE]) == {
        (ONE, False): routed_commands[:2],
        (ONE, True): routed_commands[2:],
    }


@pytest.mark.parametrize(
    ("said", "onwards"),
    [
        ("MOVED 7 other:7002", RoutedCommand(7, [0, 1], OTHER)),
        ("ASK 7 other:7002", RoutedCommand(7, [0, 1], OTHER, is_asking=True)),
        ("MOVED 7 :7002", RoutedCommand(7, [0, 1], ("one", 7002))),
        ("MOVED 7 [::1]:7002", RoutedCommand(7, [0, 1], ("::1", 7002))),
        ("TRYAGAIN Multiple keys request during rehashing of slot", RoutedCommand(7, [0, 1])),
    ],
)
def test_a_server_sends_an_errand_on(said: str, onwards: RoutedCommand) -> None:
    assert redirected(RoutedCommand(7, [0, 1]), {0: ResponseError(said), 1: [b"5", b"0"]}, ONE) == onwards


@pytest.mark.parametrize("reply", [b"MOVED 7 other:7002", None, ResponseError("OOM command not allowed")])
def test_any_other_reply_ends_it(reply: object) -> None:
    assert redirected(RoutedCommand(7, [0]), {0: reply}, ONE) is None
