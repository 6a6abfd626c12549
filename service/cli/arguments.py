"""The command line: `python -m service` and its verbs, read into values."""

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import NamedTuple

from service.api.queries import MAX_LIMIT
from service.identifiers import parse_uuid
from service.sessions.listing import SessionFilter
from service.sessions.revocation import OwnerFilter
from service.settings import MAX_WORKERS
from service.settings.api_keys import SCOPES, Scope, is_key_name

DEFAULT_LIMIT = 20
DEFAULT_WATCH_SECONDS = 2.0

_SETTINGS = "It is set up by the same environment variables as the service: REDIS_URL, SESSION_KEY_PREFIX and so on."
_NO_SERVICE_NEEDED = f"It talks to Redis directly; no replica need run. {_SETTINGS}"


class Serve(NamedTuple):
    """Serve until told to stop, by so many workers, or as many as the settings say."""

    workers: int | None = None


class Inspect(NamedTuple):
    """Look at one session, at those that are wanted, or, where all may be wanted, at everything."""

    session_id: str | None
    wanted: SessionFilter
    limit: int
    every_seconds: float | None
    as_json: bool


class Revoke(NamedTuple):
    """End one session, or all of `whose`; without asking where that is `confirmed`."""

    session_id: str | None
    whose: OwnerFilter
    confirmed: bool


class HashIds(NamedTuple):
    """Say what stands for these ids, of sessions, users or agents, in logs and traces."""

    ids: tuple[str, ...]


class CreateKey(NamedTuple):
    """Make a key of this name, with these scopes."""

    name: str
    scopes: tuple[Scope, ...]


Command_ = Serve | Inspect | Revoke | HashIds | CreateKey


def parse(words: Sequence[str]) -> Command_:
    """What these words ask for. Where they are wrong it says why and exits with 2, as argparse does."""
    parser = _parser()
    given = parser.parse_args(words)
    if given.workers is not None and given.verb not in (None, "serve"):
        parser.error("--workers: only what serves has workers")
    match given.verb:
        case "inspect":
            _require_one_kind(given)
            return Inspect(given.id, SessionFilter(given.agent, given.user), given.limit, given.watch, given.json)
        case "revoke":
            _require_one_kind(given)
            if given.id is None and given.agent is None and given.user is None:
                given.parser.error("name what is to end: an ID, --user, --agent, or the last two together")
            return Revoke(given.id, OwnerFilter(given.agent, given.user), given.yes)
        case "hash":
            return HashIds(tuple(id_.lower() for id_ in given.ids))
        case "key":
            return CreateKey(given.name, given.scopes)
        case _:
            return Serve(given.workers)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m service", description="The session service, and its operator's terminal.", epilog=_SETTINGS
    )
    _add_workers(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs (serve, unless one is given)")
    serve = verbs.add_parser("serve", help="serve the API until SIGTERM or Ctrl-C", description="Serve the API.")
    _add_workers(serve, default=SUPPRESS)  # or what stands before the verb would be forgotten
    _add_inspect(verbs.add_parser("inspect", help="look at sessions", description=_INSPECT, epilog=_NO_SERVICE_NEEDED))
    _add_revoke(verbs.add_parser("revoke", help="end sessions", description=_REVOKE, epilog=_NO_SERVICE_NEEDED))
    _add_hash(verbs.add_parser("hash", help="find ids in the log", description=_HASH, epilog=_NO_SERVICE_NEEDED))
    _add_key(verbs.add_parser("key", help="make a key for callers of the API", description=_KEY))
    return parser


_INSPECT = (
    "Look at sessions: without more, how many there are and the first of them; with an ID, everything about that one; "
    "with --user or --agent theirs, with both those between the two. Each look comes with the redis-cli line that "
    "shows the same. Looking changes nothing. Exit code: 0; 1 where the ID is unknown or Redis does not answer."
)
_REVOKE = (
    "End sessions: one by its ID, or all of a user, of an agent, or between the two, those included whose creation is "
    "under way. They are unknown (404) at once, on every replica. It asks first. Exit code: 0; 1 where nothing was "
    "ended or Redis does not answer; 2 where it may not ask and --yes is missing."
)
_HASH = (
    "Say what stands for ids of sessions, users and agents in logs and traces: a hash, keyed by a secret that the "
    "replicas keep in Redis. A line for each: the hash, two blanks, the id. Exit code: 0; 1 where there is no secret "
    "yet or Redis does not answer."
)
_KEY = (
    "Make a random key and show it, this once, with its entry for SESSION_API_KEYS, which holds its hash alone. "
    "It needs no settings, and keeps nothing."
)


def _add_workers(parser: ArgumentParser, default: str | None = None) -> None:
    parser.add_argument(
        "--workers",
        type=_workers,
        default=default,
        metavar="N",
        help=f"serve by N processes on one port, from 1 to {MAX_WORKERS} (SESSION_WORKERS unless given)",
    )


def _add_inspect(parser: ArgumentParser) -> None:
    _add_whose(parser)
    parser.add_argument(
        "--limit",
        type=_limit,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"list N sessions at most: {DEFAULT_LIMIT} unless given, up to {MAX_LIMIT}",
    )
    parser.add_argument(
        "--watch",
        type=_seconds,
        nargs="?",
        const=DEFAULT_WATCH_SECONDS,
        metavar="SECONDS",
        help=f"look again every so often ({DEFAULT_WATCH_SECONDS:g} s unless given), until Ctrl-C",
    )
    parser.add_argument("--json", action="store_true", help="say it in JSON, one document to a line")


def _add_revoke(parser: ArgumentParser) -> None:
    _add_whose(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal to ask on")


def _add_hash(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="an id of a session, a user or an agent")


def _add_key(parser: ArgumentParser) -> None:
    parser.add_argument("name", type=_key_name, metavar="NAME", help="what the key is called in the settings")
    parser.add_argument(
        "--scopes",
        type=_scopes,
        required=True,
        metavar="SCOPES",
        help=f"of {', '.join(SCOPES)}, with commas between them; each includes those before it",
    )


def _key_name(word: str) -> str:
    if not is_key_name(word):
        raise ArgumentTypeError("must be up to 64 letters, digits and ._-")
    return word


def _scopes(word: str) -> tuple[Scope, ...]:
    named = word.split(",")
    if not set(named) <= set(SCOPES):
        raise ArgumentTypeError(f"must be of {', '.join(SCOPES)}, with commas between them")
    return tuple(scope for scope in SCOPES if scope in named)


def _add_whose(parser: ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", help="the id of one session")
    parser.add_argument("--user", type=_uuid, metavar="UUID", help="the sessions of this user")
    parser.add_argument("--agent", type=_uuid, metavar="UUID", help="the sessions of this agent")
    parser.set_defaults(parser=parser)


def _require_one_kind(given: Namespace) -> None:
    if given.id is not None and (given.agent is not None or given.user is not None):
        given.parser.error("give an ID, or --user and --agent, not both")


def _uuid(word: str) -> str:
    try:
        return parse_uuid(word)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _limit(word: str) -> int:
    return _whole_number(word, MAX_LIMIT)


def _workers(word: str) -> int:
    return _whole_number(word, MAX_WORKERS)


def _whole_number(word: str, greatest: int) -> int:
    if not word.isdecimal() or not 1 <= int(word) <= greatest:
        raise ArgumentTypeError(f"must be a whole number from 1 to {greatest}")
    return int(word)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= 3600:
        raise ArgumentTypeError("must be a number of seconds from 0.1 to 3600 (an ID goes before --watch)")
    return seconds
