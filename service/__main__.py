"""`python -m service`: the service as a process, or a command of its operator's, set up by the environment."""

import asyncio
import os
import sys

import uvloop

from service import command_line, log
from service.event_log import EventLog
from service.serve import serve
from service.settings import CannotStart, Settings, load_settings, unknown_variables


def main() -> None:
    asked = command_line.parse(sys.argv[1:])
    try:
        settings = load_settings()
        if isinstance(asked, command_line.Serve):
            _serve(settings)
        else:
            sys.exit(_command(asked, settings))
    except CannotStart as error:
        sys.exit(str(error))


def _serve(settings: Settings) -> None:
    lines = log.configure(settings.session_log_format, settings.session_log_level, sys.stderr)
    readable = log.is_readable(settings.session_log_format, sys.stderr)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, EventLog(None if readable else lines)))


def _command(asked: command_line.Inspect | command_line.Revoke, settings: Settings) -> int:
    from service.terminal import commands  # only here: serving needs none of it

    log.configure("console", "error", sys.stderr)  # of what it meets, a command speaks itself
    here = commands.here()
    for name in unknown_variables(os.environ):
        here.complain(f"{name} is not a setting of this service")
    return commands.run(asked, settings, here)


if __name__ == "__main__":
    main()
