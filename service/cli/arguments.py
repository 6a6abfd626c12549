"""Parses the command line of `python -m service`."""

import re
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import NamedTuple

from service.api.query_parameters import MAX_LIMIT
from service.identifiers import parse_uuid
from service.sessions.listing import SessionFilter
from service.sessions.revocation import OwnerFilter
from service.settings import MAX_WORKERS
from service.settings.api_keys import AGENT, SCOPE_NAMES, SCOPES, is_key_name, parse_grant

DEFAULT_LIMIT = 20
DEFAULT_WATCH_SECONDS = 2.0
DEFAULT_URL = "http://127.0.0.1:3000"
DEMO_AGENT_ID = "3c90c3cc-0d44-4b50-8888-8dd25736052a"

_SETTINGS = "It uses the same environment variables as the service, such as REDIS_URL and SESSION_KEY_PREFIX."
_DIRECT = (
    f"It connects to Redis directly. It needs a running service only if that starts the embedded server. {_SETTINGS}"
)


class Serve(NamedTuple):
    """Serve the API. `workers` takes precedence over SESSION_WORKERS."""

    workers: int | None = None


class Inspect(NamedTuple):
    """Show one session, the sessions of an owner, or an overview. Repeats every `watch_seconds`."""

    session_id: str | None
    session_filter: SessionFilter
    limit: int
    watch_seconds: float | None
    as_json: bool


class Revoke(NamedTuple):
    """Revoke one session, or all sessions of an owner. Without `is_confirmed`, it prompts first."""

    session_id: str | None
    owner_filter: OwnerFilter
    is_confirmed: bool


class HashIds(NamedTuple):
    """Print the hashes that logs and traces contain instead of these ids."""

    ids: tuple[str, ...]


class CreateKey(NamedTuple):
    """Create an API key."""

    name: str
    scopes: tuple[str, ...]


class Repair(NamedTuple):
    """Repair the append-only file of the embedded server."""


class RunDemoAgent(NamedTuple):
    """Answer the messages of an agent through the HTTP API."""

    url: str
    key: str | None
    agent_id: str


RedisCommand = Inspect | Revoke | HashIds
ParsedCommand = Serve | RedisCommand | CreateKey | Repair | RunDemoAgent


def parse(words: Sequence[str]) -> ParsedCommand:
    """Parse the command line. Prints an error and exits with code 2 if it is invalid."""
    parser = _parser()
    options = parser.parse_args(words)
    if options.workers is not None and options.verb not in (None, "serve"):
        parser.error("--workers: only `serve` has this option")
    match options.verb:
        case "inspect":
            _validate_id_or_owner(options)
            session_filter = SessionFilter(options.agent, options.user)
            return Inspect(options.id, session_filter, options.limit, options.watch, options.json)
        case "revoke":
            _validate_id_or_owner(options)
            if options.id is None and options.agent is None and options.user is None:
                options.parser.error("an ID, --user or --agent is required")
            return Revoke(options.id, OwnerFilter(options.agent, options.user), options.yes)
        case "hash":
            return HashIds(tuple(options.ids))
        case "key":
            return CreateKey(options.name, options.scopes)
        case "repair":
            return Repair()
        case "demo-agent":
            return RunDemoAgent(options.url, options.key, options.agent)
        case _:
            return Serve(options.workers)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m service", description="Run the session service, or inspect its sessions.", epilog=_SETTINGS
    )
    _add_workers(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands (default: serve)")
    serve = verbs.add_parser("serve", help="serve the API until SIGTERM or Ctrl-C", description="Serve the API.")
    _add_workers(serve, default=SUPPRESS)  # a default would override the option before the verb
    _add_inspect(verbs.add_parser("inspect", help="show sessions", description=_INSPECT, epilog=_DIRECT))
    _add_revoke(verbs.add_parser("revoke", help="revoke sessions", description=_REVOKE, epilog=_DIRECT))
    _add_hash(verbs.add_parser("hash", help="show the hashes of ids in logs", description=_HASH, epilog=_DIRECT))
    _add_key(verbs.add_parser("key", help="create an API key", description=_KEY))
    verbs.add_parser("repair", help="repair the data of the embedded server", description=_REPAIR, epilog=_SETTINGS)
    _add_demo_agent(verbs.add_parser("demo-agent", help="echo messages to an agent", description=_DEMO_AGENT))
    return parser


_INSPECT = (
    "Show sessions. By default, show their number and the first of them. With an ID, show everything about one "
    "session. With --user or --agent, show the sessions of a user or an agent; with both, those between the two. "
    "The output includes redis-cli commands that show the same data. Nothing is changed. "
    "Exit code: 0 on success; 1 if the ID is unknown or Redis is unavailable."
)
_REVOKE = (
    "Revoke one session by its ID, or all sessions of a user, of an agent, or between the two. This includes sessions "
    "that are being created. All replicas return 404 for them at once. The command prompts for confirmation. "
    "Exit code: 0 on success, also if the user or agent has no sessions; 1 if the ID is unknown or expired, the "
    "prompt is not confirmed, or Redis is unavailable; 2 if it cannot prompt and --yes is missing."
)
_HASH = (
    "Show the hashes that logs and traces contain instead of the ids of sessions, users and agents. They are keyed "
    "with the shared secret in Redis. Each line has a hash, two spaces, and the id. "
    "Exit code: 0 on success; 1 if there is no shared secret yet or Redis is unavailable."
)
_KEY = (
    "Create a random API key. Print the key, and its entry for SESSION_API_KEYS, which contains only a hash. "
    "The command uses no settings and stores nothing."
)
_DEMO_AGENT = (
    "Receive the messages to one agent and answer each with its own text, in parts. The command uses only the HTTP API "
    "and no settings. It waits while the service is unavailable, and stops with Ctrl-C or SIGTERM. "
    "Exit code: 0 after it was stopped; 1 if the service rejects it."
)
_REPAIR = (
    "Repair a damaged append-only file of the embedded server, for example after a power failure. Changes behind the "
    "damage are lost. The damaged files are copied first. Stop the service before. "
    "Exit code: 0 on success; 1 if the file cannot be repaired or the service runs."
)


def _add_workers(parser: ArgumentParser, default: str | None = None) -> None:
    parser.add_argument(
        "--workers",
        type=_workers,
        default=default,
        metavar="N",
        help=f"number of processes that serve the port, between 1 and {MAX_WORKERS} (default: SESSION_WORKERS)",
    )


def _add_inspect(parser: ArgumentParser) -> None:
    _add_id_and_owner(parser)
    parser.add_argument(
        "--limit",
        type=_limit,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"list at most N sessions, up to {MAX_LIMIT} (default: {DEFAULT_LIMIT})",
    )
    parser.add_argument(
        "--watch",
        type=_seconds,
        nargs="?",
        const=DEFAULT_WATCH_SECONDS,
        metavar="SECONDS",
        help=f"repeat until Ctrl-C (default: every {DEFAULT_WATCH_SECONDS:g} seconds)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document per line")


def _add_revoke(parser: ArgumentParser) -> None:
    _add_id_and_owner(parser)
    parser.add_argument("--yes", action="store_true", help="do not prompt; required without a terminal")


def _add_hash(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", type=str.lower, help="the id of a session, a user or an agent")


def _add_key(parser: ArgumentParser) -> None:
    parser.add_argument("name", type=_key_name, metavar="NAME", help="name of the key in the settings")
    parser.add_argument(
        "--scopes",
        type=_scopes,
        required=True,
        metavar="SCOPES",
        help=f"comma-separated list of {SCOPE_NAMES}; write includes read, and admin includes both",
    )


def _add_demo_agent(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--url", type=_http_url, default=DEFAULT_URL, help=f"URL of the service (default: {DEFAULT_URL})"
    )
    parser.add_argument("--key", help="API key with the scope agent, if authentication is on")
    parser.add_argument(
        "--agent", type=_uuid, default=DEMO_AGENT_ID, metavar="UUID", help=f"the agent (default: {DEMO_AGENT_ID})"
    )


def _add_id_and_owner(parser: ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", type=str.lower, help="id of one session")
    parser.add_argument("--user", type=_uuid, metavar="UUID", help="the sessions of this user")
    parser.add_argument("--agent", type=_uuid, metavar="UUID", help="the sessions of this agent")
    parser.set_defaults(parser=parser)


def _validate_id_or_owner(options: Namespace) -> None:
    if options.id is not None and (options.agent is not None or options.user is not None):
        options.parser.error("an ID excludes --user and --agent")


def _key_name(word: str) -> str:
    if not is_key_name(word):
        raise ArgumentTypeError("must be up to 64 letters, digits and ._-")
    return word


def _scopes(word: str) -> tuple[str, ...]:
    scopes = word.split(",")
    try:
        parse_grant(scopes)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return tuple(scope for scope in (*SCOPES, AGENT) if scope in scopes) or tuple(scopes)


def _uuid(word: str) -> str:
    try:
        return parse_uuid(word)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _http_url(word: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#]+/?", word):
        raise ArgumentTypeError(f"must be a URL without a path, for example {DEFAULT_URL}")
    return word


def _limit(word: str) -> int:
    return _whole_number(word, MAX_LIMIT)


def _workers(word: str) -> int:
    return _whole_number(word, MAX_WORKERS)


def _whole_number(word: str, maximum: int) -> int:
    if not word.isdecimal() or not 1 <= int(word) <= maximum:
        raise ArgumentTypeError(f"must be a whole number between 1 and {maximum}")
    return int(word)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= 3600:
        raise ArgumentTypeError("must be between 0.1 and 3600 seconds (put an ID before --watch)")
    return seconds
