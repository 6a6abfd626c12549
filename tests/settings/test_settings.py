"""Every knob: its default, its bounds, and the one line that says what is wrong with it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import StartupError
from service.redis_client.batch import Replication
from service.redis_client.factory import replication_of
from service.settings import Settings, load_settings, unknown_variables
from service.settings.caps import NO_CAP, Caps
from service.settings.rates import Rate
from service.settings.timeouts import TimeoutConfig

Load = Callable[..., Settings]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the settings of an environment that holds nothing but the given variables."""

    def load_from(**environment: str) -> Settings:
        monkeypatch.setattr(os, "environ", environment)
        return load_settings()

    return load_from


def test_without_any_variable_the_service_starts(load: Load) -> None:
    settings = load(HOME="/home/somebody")

    assert (settings.host, settings.port) == ("127.0.0.1", 3000)
    assert settings.redis_url is None
    assert settings.default_timeout == TimeoutConfig(30, True, 720, 5)
    assert settings.timeout_bounds == (5, 1440)
    assert settings.max_duration_bounds == (5, 2880)
    assert settings.warning_threshold_bounds == (1, 1440)
    assert settings.retention_ms == 24 * 60 * 60_000
    assert settings.session_error_format == "schema"
    assert settings.session_out_of_range == "refuse"
    assert settings.session_key_prefix == ""
    assert settings.session_id_format == "uuid"
    assert settings.record_lifetime_ms == 24 * 60 * 60_000
    assert settings.session_workers == 1


def test_data_lies_in_the_users_state_by_default(load: Load) -> None:
    settings = load(XDG_STATE_HOME="/var/state")

    assert settings.session_data_dir == Path("/var/state/session-service")


def test_every_knob_is_a_variable_of_its_name(load: Load) -> None:
    settings = load(
        HOST="0.0.0.0",
        PORT="8080",
        REDIS_URL="redis://example:6379/1",
        SESSION_DEFAULT_TIMEOUT_MINUTES="10",
        SESSION_MIN_TIMEOUT_MINUTES="1",
        SESSION_MAX_TIMEOUT_MINUTES="60",
        SESSION_MAX_DURATION_MINUTES="120",
        SESSION_WARNING_THRESHOLD_MINUTES="2",
        SESSION_AUTO_RENEW="false",
        SESSION_OUT_OF_RANGE="clamp",
        SESSION_TOMBSTONE_RETENTION_MINUTES="7",
        SESSION_ERROR_FORMAT="flat",
        SESSION_KEY_PREFIX="app:",
        SESSION_DATA_DIR="/data",
        SESSION_STORE_TIMEOUT_SECONDS="0.5",
        SESSION_DRAIN_TIMEOUT_SECONDS="0",
        SESSION_WORKERS="4",
        SESSION_ID_FORMAT="hex256",
        SESSION_IDEMPOTENCY_MINUTES="0.5",
    )

    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://example:6379/1"
    assert settings.default_timeout == TimeoutConfig(10, False, 120, 2)
    assert settings.timeout_bounds == (1, 60)
    assert settings.max_duration_bounds == (1, 120)
    assert settings.retention_ms == 420_000
    assert settings.session_out_of_range == "clamp"
    assert settings.session_error_format == "flat"
    assert settings.session_key_prefix == "app:"
    assert settings.session_id_format == "hex256"
    assert settings.record_lifetime_ms == 30_000
    assert settings.session_data_dir == Path("/data")
    assert settings.session_store_timeout_seconds == 0.5
    assert settings.session_drain_timeout_seconds == 0
    assert settings.session_workers == 4


def test_an_empty_redis_url_is_refused_for_it_is_most_likely_a_secret_that_is_missing(load: Load) -> None:
    with pytest.raises(StartupError, match="REDIS_URL: is empty"):
        load(REDIS_URL="")


@pytest.mark.parametrize("url", ["redis://h:6379/0", "rediss://u:p@h", "unix:///run/redis.sock"])
def test_a_redis_url_may_be_of_these_kinds(load: Load, url: str) -> None:
    assert load(REDIS_URL=url).redis_url is not None


def test_without_numbers_there_are_no_caps(load: Load) -> None:
    assert load(SESSION_CAP_POLICY="evict").caps is None


@pytest.mark.parametrize(
    ("environment", "caps"),
    [
        ({"SESSION_MAX_PER_USER": "5"}, Caps(5, NO_CAP, evicts=False)),
        ({"SESSION_MAX_PER_AGENT": "1000000", "SESSION_CAP_POLICY": "evict"}, Caps(NO_CAP, 1_000_000, evicts=True)),
        ({"SESSION_MAX_PER_USER": "1", "SESSION_MAX_PER_AGENT": "2", "SESSION_CAP_POLICY": "deny"}, Caps(1, 2, False)),
    ],
)
def test_either_number_is_a_cap(load: Load, environment: dict[str, str], caps: Caps) -> None:
    assert load(**environment).caps == caps


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SESSION_MAX_PER_USER": "0"}, "SESSION_MAX_PER_USER=0: must be greater than or equal to 1"),
        ({"SESSION_MAX_PER_AGENT": "1000001"}, "SESSION_MAX_PER_AGENT=1000001: must be less than or equal to 1000000"),
        ({"SESSION_CAP_POLICY": "forget"}, "SESSION_CAP_POLICY=forget: must be 'deny' or 'evict'"),
    ],
)
def test_a_cap_that_cannot_be_is_refused_in_one_line(load: Load, environment: dict[str, str], said: str) -> None:
    with pytest.raises(StartupError, match=f"^{said}$"):
        load(**environment)


JWT = {"SESSION_JWT_ISSUER": "https://i.example", "SESSION_JWT_AUDIENCE": "sessions"}
JWKS = {"SESSION_JWT_JWKS_URL": "https://i.example/keys"}
SECRET = {"SESSION_JWT_SECRET": "hunter2" * 5}
KEYS = {"SESSION_API_KEYS": f"web:read:sha256:{'0' * 64}"}


@pytest.mark.parametrize(
    "environment", [KEYS, {"SESSION_API_KEYS_FILE": "/keys"}, JWT | JWKS, JWT | SECRET, JWT | JWKS | KEYS]
)
def test_keys_tokens_or_both_guard_the_service(load: Load, environment: dict[str, str]) -> None:
    assert load(**environment).requires_authentication


@pytest.mark.parametrize("environment", [{}, {"SESSION_ALLOW_ANONYMOUS": "true"}, {"SESSION_ALLOW_ANONYMOUS": "false"}])
def test_without_keys_and_tokens_nothing_guards_it(load: Load, environment: dict[str, str]) -> None:
    assert not load(**environment).requires_authentication


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SESSION_API_KEYS": ""}, "SESSION_API_KEYS: holds no key"),
        ({"SESSION_API_KEYS": "web:read:hunter2"}, "SESSION_API_KEYS: entry 1: must be name:scopes:sha256:digest"),
        (KEYS | {"SESSION_API_KEYS_FILE": "/keys"}, "SESSION_API_KEYS: must not be set beside SESSION_API_KEYS_FILE"),
        (JWT, "SESSION_JWT_JWKS_URL or SESSION_JWT_SECRET: is required where there are tokens"),
        (SECRET, "SESSION_JWT_ISSUER: is required where there are tokens"),
        (JWKS, "SESSION_JWT_ISSUER: is required where there are tokens"),
        (JWT | SECRET | {"SESSION_JWT_AUDIENCE": ""}, "SESSION_JWT_AUDIENCE=: "),
        (JWT | SECRET | JWKS, "SESSION_JWT_SECRET: must not be set beside SESSION_JWT_JWKS_URL"),
        (JWT | {"SESSION_JWT_SECRET": "hunter2"}, "SESSION_JWT_SECRET: must be 32 bytes or more, and random"),
        (
            JWT | {"SESSION_JWT_JWKS_URL": "http://u:hunter2@i.example"},
            "SESSION_JWT_JWKS_URL: must begin with https://",
        ),
        (JWT | {"SESSION_JWT_JWKS_URL": "http://127.0.0.1.example/"}, "SESSION_JWT_JWKS_URL: must begin with https://"),
    ],
    ids=range(11),
)
def test_what_is_wrong_with_keys_and_tokens_is_told_without_them(
    load: Load, environment: dict[str, str], said: str
) -> None:
    with pytest.raises(StartupError) as refusal:
        load(**environment)

    assert str(refusal.value).startswith(said)
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_issuer_on_this_machine_may_do_without_tls(load: Load) -> None:
    assert load(**JWT, SESSION_JWT_JWKS_URL="http://127.0.0.1:8080/keys").session_jwt_jwks_url


def test_nothing_is_limited_by_default(load: Load) -> None:
    settings = load()

    assert (settings.rate_per_address, settings.rate_per_caller) == (None, None)
    assert (settings.guesses_per_address, settings.guesses_per_caller) == (None, None)


def test_a_tenth_of_what_may_be_asked_may_be_guessed(load: Load) -> None:
    settings = load(SESSION_RATE_PER_ADDRESS="100/minute", SESSION_RATE_PER_CALLER="5/day")

    assert (settings.guesses_per_address, settings.guesses_per_caller) == (Rate(10, 60), Rate(1, 86_400))


@pytest.mark.parametrize(("failed_lookups", "rate"), [("off", None), ("7/hour", Rate(7, 3600))])
def test_unless_something_else_is_said_of_guesses(load: Load, failed_lookups: str, rate: Rate | None) -> None:
    settings = load(SESSION_RATE_PER_ADDRESS="100/minute", SESSION_GUESSES_PER_ADDRESS=failed_lookups)

    assert settings.guesses_per_address == rate


def test_a_password_is_not_shown_with_the_settings(load: Load) -> None:
    settings = load(REDIS_URL="redis://user:hunter2@h:6379", **JWT, **SECRET)

    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


def test_whole_minutes_are_shown_whole(load: Load) -> None:
    settings = load(SESSION_DEFAULT_TIMEOUT_MINUTES="30.0")

    assert repr(settings.default_timeout.timeout_minutes) == "30"


def test_minutes_are_whole_where_the_least_timeout_is(load: Load) -> None:
    assert load().whole_minutes is True
    assert load(SESSION_MIN_TIMEOUT_MINUTES="0.5").whole_minutes is False


def test_with_a_fraction_as_the_least_timeout_defaults_may_be_fractions(load: Load) -> None:
    settings = load(SESSION_MIN_TIMEOUT_MINUTES="0.001", SESSION_DEFAULT_TIMEOUT_MINUTES="0.002")

    assert settings.default_timeout.timeout_minutes == 0.002


def test_a_warning_may_be_as_short_as_the_shortest_session(load: Load) -> None:
    assert load(SESSION_MIN_TIMEOUT_MINUTES="0.25").warning_threshold_bounds == (0.25, 1440)


def test_lookups_outlive_the_longest_life_by_a_day(load: Load) -> None:
    settings = load(SESSION_MAX_TIMEOUT_MINUTES="1440")

    assert settings.owner_index_lifetime_ms == (2880 + 1440) * 60_000


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORT", "65536", "less than or equal to 65535"),
        ("PORT", "-1", "greater than or equal to 0"),
        ("PORT", "http", "PORT=http: must be a whole number"),
        ("PORT", "", "PORT=: must be a whole number"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "4", "must be from 5 to 1440"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "1441", "must be from 5 to 1440"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "30.5", "must be whole"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "nan", "must be from 5 to 1440"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "half an hour", "must be a number"),
        ("SESSION_MIN_TIMEOUT_MINUTES", "0", "greater than or equal to 0.001"),
        ("SESSION_MIN_TIMEOUT_MINUTES", "-5", "greater than or equal to 0.001"),
        ("SESSION_MIN_TIMEOUT_MINUTES", "nan", "finite number"),
        ("SESSION_MAX_TIMEOUT_MINUTES", "inf", "finite number"),
        ("SESSION_MAX_TIMEOUT_MINUTES", "525601", "less than or equal to 525600"),
        ("SESSION_MAX_TIMEOUT_MINUTES", "4", "must not be below SESSION_MIN_TIMEOUT_MINUTES (5)"),
        ("SESSION_MAX_DURATION_MINUTES", "2881", "must be from 5 to 2880"),
        ("SESSION_MAX_DURATION_MINUTES", "4", "must be from 5 to 2880"),
        ("SESSION_WARNING_THRESHOLD_MINUTES", "0", "must be from 1 to 1440"),
        ("SESSION_AUTO_RENEW", "perhaps", "must be true or false"),
        ("SESSION_OUT_OF_RANGE", "ignore", "'refuse' or 'clamp'"),
        ("SESSION_TOMBSTONE_RETENTION_MINUTES", "0", "greater than or equal to 0.001"),
        ("SESSION_ERROR_FORMAT", "xml", "'schema' or 'flat'"),
        ("SESSION_CORS_ORIGINS", "https://app.example/", "must be origins as browsers say them"),
        ("SESSION_CORS_ORIGINS", "app.example", "must be origins as browsers say them"),
        ("SESSION_CORS_ORIGINS", "null", "must be origins as browsers say them"),
        ("SESSION_CORS_ORIGINS", "https://*.example", "must be origins as browsers say them"),
        ("SESSION_CORS_ORIGINS", "https://App.example", "must be origins as browsers say them"),
        ("SESSION_CORS_ORIGINS", "*, https://app.example", "must be * alone, or origins"),
        ("SESSION_CORS_ORIGINS", "*", "needs keys or tokens; without them name the origins"),
        ("SESSION_KEY_PREFIX", "{app}:", "may not hold braces, blanks or control characters"),
        ("SESSION_KEY_PREFIX", "my app:", "may not hold braces, blanks or control characters"),
        ("SESSION_KEY_PREFIX", "app\x00", "may not hold braces, blanks or control characters"),
        ("SESSION_STORE_TIMEOUT_SECONDS", "0", "greater than or equal to 0.05"),
        ("SESSION_STORE_TIMEOUT_SECONDS", "61", "less than or equal to 60"),
        ("SESSION_RECONCILE_INTERVAL_SECONDS", "0", "greater than or equal to 0.01"),
        ("SESSION_WORKERS", "0", "greater than or equal to 1"),
        ("SESSION_WORKERS", "65", "less than or equal to 64"),
        ("SESSION_WAIT_REPLICAS", "-1", "greater than or equal to 0"),
        ("SESSION_WAIT_REPLICAS", "17", "less than or equal to 16"),
        ("SESSION_WORKERS", "all", "must be a whole number"),
        ("SESSION_DRAIN_TIMEOUT_SECONDS", "-1", "greater than or equal to 0"),
        ("SESSION_RATE_PER_ADDRESS", "100", "must be like 100/minute (second, minute, hour, day)"),
        ("SESSION_RATE_PER_CALLER", "0/minute", "must be like 100/minute"),
        ("SESSION_GUESSES_PER_ADDRESS", "", "must be like 100/minute"),
        ("SESSION_GUESSES_PER_CALLER", "ten/minute", "must be like 100/minute"),
        ("SESSION_AUDIT_LOG", "stdout", "must be off, stderr, or the path of a file, with a / in it"),
        ("TRUSTED_PROXIES", "10.0.0.0/8 balancer", "'balancer' is neither an address nor a network"),
        (
            "TRUSTED_PROXIES",
            "10.0.0.1/8",
            "'10.0.0.1/8' is neither an address nor a network (10.0.0.1/8 has host bits set)",
        ),
    ],
)
def test_a_wrong_setting_is_named_in_one_line_with_what_it_may_be(
    load: Load, variable: str, value: str, said: str
) -> None:
    with pytest.raises(StartupError) as refusal:
        load(**{variable: value})

    assert str(refusal.value).startswith(f"{variable}={value}: ")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("url", ["redis+sentinel://a,b:1/main/0", "rediss+cluster://u:p@a:1,b"])
def test_a_redis_url_may_name_sentinels_or_a_cluster(load: Load, url: str) -> None:
    found = load(REDIS_URL=url).redis_url

    assert found is not None
    assert found.get_secret_value() == url


@pytest.mark.parametrize(("replicas", "milliseconds"), [("0", None), ("2", 1000)])
def test_replicas_have_half_of_the_time_of_a_request(load: Load, replicas: str, milliseconds: int | None) -> None:
    settings = load(SESSION_WAIT_REPLICAS=replicas, SESSION_STORE_TIMEOUT_SECONDS="2")

    assert replication_of(settings) == (None if milliseconds is None else Replication(int(replicas), milliseconds))


@pytest.mark.parametrize("url", ["http://h", "redis+nonsense://h", "localhost:6379", "h", "//h", "redis"])
def test_a_redis_url_of_an_unknown_kind_is_refused(load: Load, url: str) -> None:
    with pytest.raises(StartupError, match=r"^REDIS_URL: the URL must begin with one of redis://, rediss://, unix://"):
        load(REDIS_URL=url)


@pytest.mark.parametrize("url", ["http://u:hunter2@h", "hunter2", "hunter2@h:6379", "redis//:hunter2@h"])
def test_a_refused_redis_url_is_not_repeated(load: Load, url: str) -> None:
    with pytest.raises(StartupError) as refusal:
        load(REDIS_URL=url)

    assert "hunter2" not in str(refusal.value)


def test_several_wrong_settings_are_named_at_once(load: Load) -> None:
    with pytest.raises(StartupError) as refusal:
        load(PORT="x", SESSION_ERROR_FORMAT="xml")

    assert [line.partition("=")[0] for line in str(refusal.value).split("\n")] == ["PORT", "SESSION_ERROR_FORMAT"]


def test_a_variable_that_no_knob_reads_is_found() -> None:
    environment = {"SESSION_TIMEOUT": "5", "SESSION_KEY_PREFIX": "", "session_nonsense": "1", "PATH": "", "HOST": ""}

    assert unknown_variables(environment) == ["SESSION_TIMEOUT", "session_nonsense"]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]
