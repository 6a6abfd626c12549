"""Settings are loaded from environment variables. Errors name the variable, its valid values and its value."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import StartupError
from service.process.embedded_server import data_dir_of
from service.process.serve import print_banner
from service.redis_client.batch import Replication
from service.redis_client.factory import replication_of
from service.settings import Settings, load_settings, unknown_variables
from service.settings.rate_limits import Rate
from service.settings.sessions import NO_CAP, Caps, TimeoutConfig

Load = Callable[..., Settings]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the settings from an environment that contains only the given variables."""

    def load_from(**environment: str) -> Settings:
        monkeypatch.setattr(os, "environ", environment)
        return load_settings()

    return load_from


def test_every_setting_has_a_default(load: Load) -> None:
    settings = load(HOME="/home/user")

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


def test_the_default_data_directory_is_in_the_state_directory_of_the_user(load: Load) -> None:
    settings = load(XDG_STATE_HOME="/var/state")

    assert settings.session_data_dir == Path("/var/state/session-service")


def test_without_a_home_directory_other_settings_are_loaded(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)

    settings = load(REDIS_URL="redis://example:6379")

    print_banner("http://127.0.0.1:3000", settings)
    with pytest.raises(
        StartupError, match=r"^SESSION_DATA_DIR=~/\.local/state/session-service: .* set SESSION_DATA_DIR"
    ):
        data_dir_of(settings)


def test_the_default_timeout_raises_the_default_maximum_duration(load: Load) -> None:
    settings = load(SESSION_DEFAULT_TIMEOUT_MINUTES="1000")

    assert settings.default_timeout == TimeoutConfig(1000, True, 1000, 5)


def test_variables_set_the_settings_of_the_same_names(load: Load) -> None:
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


def test_settings_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_unknown_session_variables_are_found() -> None:
    environment = {"SESSION_TIMEOUT": "5", "SESSION_KEY_PREFIX": "", "session_nonsense": "1", "PATH": "", "HOST": ""}

    assert unknown_variables(environment) == ["SESSION_TIMEOUT", "session_nonsense"]


# Redis


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:6379/0",
        "rediss://u:p@h",
        "unix:///run/redis.sock",
        "redis+sentinel://a,b:1/main/0",
        "rediss+cluster://u:p@a:1,b",
    ],
)
def test_a_redis_url_names_a_server_sentinels_or_a_cluster(load: Load, url: str) -> None:
    loaded = load(REDIS_URL=url).redis_url

    assert loaded is not None
    assert loaded.get_secret_value() == url


def test_an_empty_redis_url_is_an_error(load: Load) -> None:
    with pytest.raises(StartupError, match="REDIS_URL must not be empty"):
        load(REDIS_URL="")


@pytest.mark.parametrize("url", ["http://h", "redis+nonsense://h", "localhost:6379", "h", "//h", "redis"])
def test_a_redis_url_with_an_unknown_scheme_is_an_error(load: Load, url: str) -> None:
    with pytest.raises(StartupError, match=r"^REDIS_URL must start with one of redis://, rediss://, unix://"):
        load(REDIS_URL=url)


@pytest.mark.parametrize("url", ["http://u:hunter2@h", "hunter2", "hunter2@h:6379", "redis//:hunter2@h"])
def test_an_error_does_not_repeat_the_redis_url(load: Load, url: str) -> None:
    with pytest.raises(StartupError) as error:
        load(REDIS_URL=url)

    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(("replicas", "milliseconds"), [("0", None), ("2", 1000)])
def test_waiting_for_replicas_takes_at_most_half_of_the_store_timeout(
    load: Load, replicas: str, milliseconds: int | None
) -> None:
    settings = load(SESSION_WAIT_REPLICAS=replicas, SESSION_STORE_TIMEOUT_SECONDS="2")

    assert replication_of(settings) == (None if milliseconds is None else Replication(int(replicas), milliseconds))


# Sessions


def test_whole_minutes_are_integers(load: Load) -> None:
    settings = load(SESSION_DEFAULT_TIMEOUT_MINUTES="30.0")

    assert repr(settings.default_timeout.timeout_minutes) == "30"


def test_minutes_are_whole_unless_the_minimum_timeout_is_a_fraction(load: Load) -> None:
    assert load().whole_minutes is True
    assert load(SESSION_MIN_TIMEOUT_MINUTES="0.5").whole_minutes is False


def test_a_fraction_as_the_minimum_timeout_allows_fractions_as_defaults(load: Load) -> None:
    settings = load(SESSION_MIN_TIMEOUT_MINUTES="0.001", SESSION_DEFAULT_TIMEOUT_MINUTES="0.002")

    assert settings.default_timeout.timeout_minutes == 0.002


def test_a_warning_threshold_can_be_as_short_as_the_minimum_timeout(load: Load) -> None:
    assert load(SESSION_MIN_TIMEOUT_MINUTES="0.25").warning_threshold_bounds == (0.25, 1440)


def test_owner_indexes_outlive_the_longest_session_by_a_day(load: Load) -> None:
    settings = load(SESSION_MAX_TIMEOUT_MINUTES="1440")

    assert settings.owner_index_lifetime_ms == (2880 + 1440) * 60_000


def test_a_cap_policy_without_a_cap_has_no_effect(load: Load) -> None:
    assert load(SESSION_CAP_POLICY="evict").caps is None


@pytest.mark.parametrize(
    ("environment", "caps"),
    [
        ({"SESSION_MAX_PER_USER": "5"}, Caps(5, NO_CAP, evicts=False)),
        ({"SESSION_MAX_PER_AGENT": "1000000", "SESSION_CAP_POLICY": "evict"}, Caps(NO_CAP, 1_000_000, evicts=True)),
        ({"SESSION_MAX_PER_USER": "1", "SESSION_MAX_PER_AGENT": "2", "SESSION_CAP_POLICY": "deny"}, Caps(1, 2, False)),
    ],
)
def test_each_maximum_is_a_cap(load: Load, environment: dict[str, str], caps: Caps) -> None:
    assert load(**environment).caps == caps


# Authentication

JWT = {"SESSION_JWT_ISSUER": "https://i.example", "SESSION_JWT_AUDIENCE": "sessions"}
JWKS = {"SESSION_JWT_JWKS_URL": "https://i.example/keys"}
SECRET = {"SESSION_JWT_SECRET": "hunter2" * 5}
KEYS = {"SESSION_API_KEYS": f"web:read:sha256:{'0' * 64}"}


@pytest.mark.parametrize(
    "environment", [KEYS, {"SESSION_API_KEYS_FILE": "/keys"}, JWT | JWKS, JWT | SECRET, JWT | JWKS | KEYS]
)
def test_keys_or_tokens_require_authentication(load: Load, environment: dict[str, str]) -> None:
    assert load(**environment).requires_authentication


@pytest.mark.parametrize("environment", [{}, {"SESSION_ALLOW_ANONYMOUS": "true"}, {"SESSION_ALLOW_ANONYMOUS": "false"}])
def test_authentication_is_not_required_without_keys_and_tokens(load: Load, environment: dict[str, str]) -> None:
    assert not load(**environment).requires_authentication


def test_an_issuer_on_the_same_machine_does_not_need_tls(load: Load) -> None:
    assert load(**JWT, SESSION_JWT_JWKS_URL="http://127.0.0.1:8080/keys").session_jwt_jwks_url


def test_secrets_are_not_in_the_representation_of_the_settings(load: Load) -> None:
    settings = load(REDIS_URL="redis://user:hunter2@h:6379", **JWT, **SECRET)

    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


# Rate limits


def test_there_are_no_rate_limits_by_default(load: Load) -> None:
    settings = load()

    assert (settings.rate_per_address, settings.rate_per_caller) == (None, None)
    assert (settings.failed_lookups_per_address, settings.failed_lookups_per_caller) == (None, None)


def test_the_default_rate_of_failed_lookups_is_a_tenth_of_the_rate_of_requests(load: Load) -> None:
    settings = load(SESSION_RATE_PER_ADDRESS="100/minute", SESSION_RATE_PER_CALLER="5/day")

    assert (settings.failed_lookups_per_address, settings.failed_lookups_per_caller) == (Rate(10, 60), Rate(1, 86_400))


@pytest.mark.parametrize(("failed_lookups", "rate"), [("off", None), ("7/hour", Rate(7, 3600))])
def test_failed_lookups_can_have_their_own_rate(load: Load, failed_lookups: str, rate: Rate | None) -> None:
    settings = load(SESSION_RATE_PER_ADDRESS="100/minute", SESSION_GUESSES_PER_ADDRESS=failed_lookups)

    assert settings.failed_lookups_per_address == rate


@pytest.mark.parametrize(
    ("url", "complete"),
    [
        ("redis://example:6379/1", "redis://:p%40ss%2F%25@example:6379/1"),
        ("redis://user@example", "redis://user:p%40ss%2F%25@example"),
        ("redis://user:own@example/0?a=b", "redis://user:own@example/0?a=b"),
        ("redis+cluster://user@a:1,b:2", "redis+cluster://user:p%40ss%2F%25@a:1,b:2"),
        (
            "redis+sentinel://a:1,b:2/main/0?ssl_ca_certs=x",
            "redis+sentinel://:p%40ss%2F%25@a:1,b:2/main/0?ssl_ca_certs=x",
        ),
        ("unix:///run/valkey.sock?db=1", "unix://:p%40ss%2F%25@/run/valkey.sock?db=1"),
    ],
)
def test_the_redis_password_completes_the_url(load: Load, url: str, complete: str) -> None:
    loaded = load(REDIS_URL=url, REDIS_PASSWORD="p@ss/%").redis_url

    assert loaded is not None
    assert loaded.get_secret_value() == complete
