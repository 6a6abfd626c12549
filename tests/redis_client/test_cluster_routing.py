"""Commands are routed by the hash slot of their key, and follow redirections."""

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

NODE, OTHER_NODE = ("node", 7001), ("other", 7002)


def test_a_command_is_routed_by_the_hash_tag_of_its_key() -> None:
    routed = route_commands([("HMGET", "session:{ab}:abc", "x"), ("ZCARD", "sessions:{ab}:created"), ("ZCARD", "{cd}")])

    assert routed == [
        RoutedCommand(slot_of("ab"), [0]),
        RoutedCommand(slot_of("ab"), [1]),
        RoutedCommand(slot_of("cd"), [2]),
    ]


@pytest.mark.parametrize(
    "command", [("EVALSHA", "sha", 1, "{ab}", "x"), ("EVAL", "text", 2, "{ab}", "{ab}"), ("OBJECT", "ENCODING", "{ab}")]
)
def test_the_key_is_found_in_commands_that_have_it_in_another_position(command: tuple[str | int, ...]) -> None:
    assert route_commands([command]) == [RoutedCommand(slot_of("ab"), [0])]


def test_a_command_without_a_key_follows_the_command_before_it() -> None:
    assert route_commands([("ZCARD", "ab"), ("TIME",), ("ZCARD", "cd"), ("TIME",)]) == [
        RoutedCommand(slot_of("ab"), [0, 1]),
        RoutedCommand(slot_of("cd"), [2, 3]),
    ]


def test_ordered_commands_are_grouped_while_their_slot_is_the_same() -> None:
    commands = [("GET", "{a}1"), ("GET", "{a}2"), ("GET", "{b}"), ("GET", "{a}3")]

    assert ordered_groups(commands) == [commands[:2], commands[2:3], commands[3:]]


def test_a_script_is_the_last_command_of_its_group() -> None:
    commands = [("GET", "{a}1"), ("EVALSHA", "sha", 1, "{a}2"), ("EVALSHA", "sha", 1, "{a}3")]

    assert ordered_groups(commands) == [commands[:2], commands[2:]]


def test_commands_are_grouped_by_node_and_by_the_need_for_asking() -> None:
    routed = [RoutedCommand(1, [0]), RoutedCommand(2, [1]), RoutedCommand(3, [2], is_asking=True)]

    assert group_by_node(routed, [NODE, NODE, NODE]) == {(NODE, False): routed[:2], (NODE, True): routed[2:]}


@pytest.mark.parametrize(
    ("message", "target"),
    [
        ("MOVED 7 other:7002", RoutedCommand(7, [0, 1], OTHER_NODE)),
        ("ASK 7 other:7002", RoutedCommand(7, [0, 1], OTHER_NODE, is_asking=True)),
        ("MOVED 7 :7002", RoutedCommand(7, [0, 1], ("node", 7002))),
        ("MOVED 7 [::1]:7002", RoutedCommand(7, [0, 1], ("::1", 7002))),
        ("TRYAGAIN Multiple keys request during rehashing of slot", RoutedCommand(7, [0, 1])),
    ],
)
def test_a_redirection_names_the_next_target(message: str, target: RoutedCommand) -> None:
    assert redirected(RoutedCommand(7, [0, 1]), {0: ResponseError(message), 1: [b"5", b"0"]}, NODE) == target


@pytest.mark.parametrize("reply", [b"MOVED 7 other:7002", None, ResponseError("OOM command not allowed")])
def test_other_replies_are_no_redirection(reply: object) -> None:
    assert redirected(RoutedCommand(7, [0]), {0: reply}, NODE) is None
