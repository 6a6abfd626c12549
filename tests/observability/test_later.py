"""Work that waits is done in its order: when its moment has come, when there is much of it, or when it is asked for."""

import asyncio

from service.observability.later import Later


async def test_what_waits_is_done_when_it_is_asked_for() -> None:
    later, done = Later(), list[int]()
    for number in range(3):
        later.do(done.append, number)
    at_first = done.copy()

    later.catch_up()

    assert (at_first, done) == ([], [0, 1, 2])


async def test_what_waits_is_done_in_its_moment() -> None:
    done = asyncio.get_running_loop().create_future()

    Later().do(done.set_result, "in time")

    assert await done == "in time"


async def test_a_hundred_pieces_wait_no_longer() -> None:
    later, done = Later(), list[int]()

    for number in range(150):
        later.do(done.append, number)

    assert done == list(range(100))


def test_where_no_event_loop_runs_nothing_waits() -> None:
    done = list[str]()

    Later().do(done.append, "at once")

    assert done == ["at once"]
