"""`python -m service`: the service as a process, or a command of its operator's, set up by the environment."""

import asyncio
import os
import sys

import uvloop

from service.auth.api_keys import new_key
from service.auth.authenticator import require_authentication
from service.cli import arguments
from service.errors import StartupError
from service.observability.event_log import open_event_log
from service.process.serve import serve
from service.process.workers import serve_by_workers
from service.settings import Settings, load_settings, unknown_variables


def main() -> None:
    asked = arguments.parse(sys.argv[1:])
    if isinstance(asked, arguments.CreateKey):
        sys.exit(_make_key(asked))
    try:
        settings = load_settings()
        if isinstance(asked, arguments.Serve):
            sys.exit(_serve(settings, asked.workers or settings.session_workers))
        else:
            sys.exit(_command(asked, settings))
    except StartupError as error:
        sys.exit(str(error))


def _serve(settings: Settings, workers: int) -> int:
    require_authentication(settings)
    event_log = open_event_log(sys.stderr, settings.session_log_format, settings.session_log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if workers > 1:
            return runner.run(serve_by_workers(settings, workers))
        runner.run(serve(settings, event_log))
    return 0


def _make_key(asked: arguments.CreateKey) -> int:
    """It needs no settings: these may be wrong for want of a key."""
    key, entry = new_key(asked.name, asked.scopes)
    sys.stdout.write(
        f"The key, for whoever is to use it. It is shown this once:\n  {key}\n"
        f"Its entry, for SESSION_API_KEYS or the file of SESSION_API_KEYS_FILE:\n  {entry}\n"
    )
    return 0


def _command(asked: arguments.Inspect | arguments.Revoke | arguments.HashIds, settings: Settings) -> int:
    from service.cli import commands  # only here: serving needs none of it

    event_log = open_event_log(sys.stderr, settings.session_log_format, "error")  # of the rest, a command speaks itself
    here = commands.here()
    for name in unknown_variables(os.environ):
        here.complain(f"{name} is not a setting of this service")
    return commands.run(asked, settings, here, event_log)


if __name__ == "__main__":
    main()
