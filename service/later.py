"""Small work that can wait: many pieces done in a row cost a third of what they cost in between other work."""

import asyncio
from collections.abc import Callable
from typing import Any

_WAITS_SECONDS = 0.05
_MOST_WAITING = 100


class Later:
    """Calls functions in their order, within 50 ms; at once where no event loop runs."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[..., None], Any]] = []

    def do(self, function: Callable[..., None], *arguments: Any) -> None:
        self._waiting.append((function, arguments))
        if len(self._waiting) == 1:
            self._come_back()
        elif len(self._waiting) == _MOST_WAITING:
            self.catch_up()

    def catch_up(self) -> None:
        """Do now all that waits."""
        waiting, self._waiting = self._waiting, []
        for function, arguments in waiting:
            function(*arguments)

    def _come_back(self) -> None:
        try:
            asyncio.get_running_loop().call_later(_WAITS_SECONDS, self.catch_up)
        except RuntimeError:
            self.catch_up()
