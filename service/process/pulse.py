"""Whether a worker still goes round: it beats on its stdout each second, and its parent listens.

A beat leaves from the event loop, so a worker whose loop stands still is as silent as one that was stopped.
"""

import asyncio
import os
from contextlib import suppress

BEAT = b"\n"
BEAT_SECONDS = 1

LOOK_SECONDS = 1
MOST_SILENT_LOOKS = 15
"""Looks are counted and no time: where all of the machine stood still, or the parent, that is one look."""


def beat(file: int) -> None:
    """Now, and from the running loop for as long as it runs. Where nobody listens any more, nobody waits for that."""
    os.set_blocking(file, False)
    _beat_on(file, asyncio.get_running_loop())


def _beat_on(file: int, loop: asyncio.AbstractEventLoop) -> None:
    with suppress(OSError):
        os.write(file, BEAT)
    loop.call_later(BEAT_SECONDS, _beat_on, file, loop)


async def fell_silent(beats: asyncio.StreamReader) -> bool:
    """Waits until nothing has come for too long; or for its end, and then it did not."""
    silent_looks = 0
    while silent_looks < MOST_SILENT_LOOKS:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                if not await beats.read(1024):
                    return False
            silent_looks = 0
        except TimeoutError:
            silent_looks += 1
    return True
