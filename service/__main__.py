"""`python -m service`: the service as a process, set up by its environment."""

import asyncio
import sys

import uvloop

from service import log
from service.event_log import EventLog
from service.serve import serve
from service.settings import CannotStart, load_settings


def main() -> None:
    try:
        settings = load_settings()
        lines = log.configure(settings.session_log_format, settings.session_log_level, sys.stderr)
        readable = log.is_readable(settings.session_log_format, sys.stderr)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, EventLog(None if readable else lines)))
    except CannotStart as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
