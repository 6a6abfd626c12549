"""Entry point of `python -m service`: serves the API, or runs a command."""

import asyncio
import os
import sys

import uvloop

from service.auth.api_keys import new_key
from service.auth.authenticator import require_authentication
from service.cli import arguments
from service.errors import StartupError
from service.observability.event_log import open_event_log
from service.process.embedded_server import data_dir_of, repair_append_only_file
from service.process.listeners import require_known_host
from service.process.serve import serve
from service.process.workers import serve_with_workers
from service.settings import Settings, load_settings, unknown_variables


def main() -> None:
    command = arguments.parse(sys.argv[1:])
    if isinstance(command, arguments.CreateKey):  # without settings: they may be invalid until there is a key
        sys.exit(_create_key(command))
    try:
        if isinstance(command, arguments.RunDemoAgent):
            sys.exit(_run_demo_agent(command))
        settings = load_settings()
        if isinstance(command, arguments.Serve):
            sys.exit(_serve(settings, command.workers or settings.session_workers))
        elif isinstance(command, arguments.Repair):
            sys.exit(_repair(settings))
        else:
            sys.exit(_run(command, settings))
    except StartupError as error:
        sys.exit(str(error))


def _serve(settings: Settings, workers: int) -> int:
    require_known_host(settings)
    require_authentication(settings)
    if workers > 1:
        return serve_with_workers(settings, workers)
    event_log = open_event_log(sys.stderr, settings.session_log_format, settings.session_log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, event_log))
    return 0


def _repair(settings: Settings) -> int:
    copy = asyncio.run(repair_append_only_file(data_dir_of(settings)))
    sys.stdout.write(f"The append-only file is repaired. The damaged files are in {copy}\n")
    return 0


def _create_key(command: arguments.CreateKey) -> int:
    key, entry = new_key(command.name, command.scopes)
    sys.stdout.write(
        f"API key (shown only once):\n  {key}\nEntry for SESSION_API_KEYS or SESSION_API_KEYS_FILE:\n  {entry}\n"
    )
    return 0


def _run_demo_agent(command: arguments.RunDemoAgent) -> int:
    from service.cli import demo_agent  # here, because serving does not need it

    return demo_agent.run(command)


def _run(command: arguments.RedisCommand, settings: Settings) -> int:
    from service.cli import commands  # here, because serving does not need rich

    event_log = open_event_log(sys.stderr, settings.session_log_format, "error")
    terminal = commands.process_terminal()
    for name in unknown_variables(os.environ):
        terminal.print_error(f"{name} is not a setting of this service")
    return commands.run(command, settings, terminal, event_log)


if __name__ == "__main__":
    main()
