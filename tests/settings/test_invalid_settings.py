"""An invalid setting is an error of one line. It names the variable, the valid values, and the value unless secret."""

import pytest

from service.errors import StartupError
from tests.settings.test_settings import JWKS, JWT, KEYS, SECRET, Load, load

__all__ = ["load"]


@pytest.mark.parametrize(
    ("variable", "value", "requirement"),
    [
        ("PORT", "65536", "must be between 0 and 65535"),
        ("PORT", "-1", "must be between 0 and 65535"),
        ("PORT", "http", "must be a whole number"),
        ("PORT", "", "must be a whole number"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "4", "must be between 5 and 1440"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "1441", "must be between 5 and 1440"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "30.5", "must be a whole number, because SESSION_MIN_TIMEOUT_MINUTES is"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "nan", "must be between 5 and 1440"),
        ("SESSION_DEFAULT_TIMEOUT_MINUTES", "half an hour", "must be a number"),
        ("SESSION_MIN_TIMEOUT_MINUTES", "0", "must be between 0.001 and 525600"),
        ("SESSION_MIN_TIMEOUT_MINUTES", "-5", "must be between 0.001 and 525600"),
        ("SESSION_MIN_TIMEOUT_MINUTES", "nan", "must be between 0.001 and 525600"),
        ("SESSION_MAX_TIMEOUT_MINUTES", "inf", "must be between 0.001 and 525600"),
        ("SESSION_MAX_TIMEOUT_MINUTES", "525601", "must be between 0.001 and 525600"),
        ("SESSION_MAX_TIMEOUT_MINUTES", "4", "must not be less than SESSION_MIN_TIMEOUT_MINUTES, which is 5"),
        ("SESSION_MAX_DURATION_MINUTES", "2881", "must be between 5 and 2880"),
        ("SESSION_MAX_DURATION_MINUTES", "4", "must be between 5 and 2880"),
        ("SESSION_WARNING_THRESHOLD_MINUTES", "0", "must be between 1 and 1440"),
        ("SESSION_AUTO_RENEW", "perhaps", "must be true or false"),
        ("SESSION_OUT_OF_RANGE", "ignore", "must be one of refuse, clamp"),
        ("SESSION_TOMBSTONE_RETENTION_MINUTES", "0", "must be between 0.001 and 525600"),
        ("SESSION_MAX_PER_USER", "0", "must be between 1 and 1000000"),
        ("SESSION_MAX_PER_AGENT", "1000001", "must be between 1 and 1000000"),
        ("SESSION_CAP_POLICY", "forget", "must be one of deny, evict"),
        ("SESSION_ERROR_FORMAT", "xml", "must be one of schema, flat"),
        ("SESSION_ALLOWED_HOSTS", "sessions.example:3000", "must list names or addresses without ports"),
        ("SESSION_ALLOWED_HOSTS", "http://sessions.example", "must list names or addresses without ports"),
        ("SESSION_ALLOWED_HOSTS", "*.example", "must list names or addresses without ports"),
        ("SESSION_ALLOWED_HOSTS", "[::1]", "must list names or addresses without ports"),
        ("SESSION_CORS_ORIGINS", "https://app.example/", "must list origins such as https://app.example"),
        ("SESSION_CORS_ORIGINS", "app.example", "must list origins such as https://app.example"),
        ("SESSION_CORS_ORIGINS", "null", "must list origins such as https://app.example"),
        ("SESSION_CORS_ORIGINS", "https://*.example", "must list origins such as https://app.example"),
        ("SESSION_CORS_ORIGINS", "https://App.example", "must list origins such as https://app.example"),
        ("SESSION_CORS_ORIGINS", "https://app.example:65536", "must list origins such as https://app.example"),
        ("SESSION_CORS_ORIGINS", "https://127.1", "must list origins such as https://app.example"),
        ("SESSION_CORS_ORIGINS", "http://[::0001]", "must list origins such as https://app.example"),
        ("SESSION_CORS_ORIGINS", "file://", "must list origins such as https://app.example"),
        ("SESSION_CORS_ORIGINS", "*, https://app.example", "must be either * or a list of origins"),
        ("SESSION_CORS_ORIGINS", "*", "must list origins, unless API keys or tokens are required"),
        ("SESSION_KEY_PREFIX", "{app}:", "must not contain braces, spaces or control characters"),
        ("SESSION_KEY_PREFIX", "my app:", "must not contain braces, spaces or control characters"),
        ("SESSION_KEY_PREFIX", "app\x00", "must not contain braces, spaces or control characters"),
        ("SESSION_STORE_TIMEOUT_SECONDS", "0", "must be between 0.05 and 60"),
        ("SESSION_STORE_TIMEOUT_SECONDS", "61", "must be between 0.05 and 60"),
        ("SESSION_RECONCILE_INTERVAL_SECONDS", "0", "must be between 0.01 and 3600"),
        ("SESSION_WORKERS", "0", "must be between 1 and 64"),
        ("SESSION_WORKERS", "65", "must be between 1 and 64"),
        ("SESSION_WORKERS", "all", "must be a whole number"),
        ("SESSION_WAIT_REPLICAS", "-1", "must be between 0 and 16"),
        ("SESSION_WAIT_REPLICAS", "17", "must be between 0 and 16"),
        ("SESSION_DRAIN_TIMEOUT_SECONDS", "-1", "must be between 0 and 600"),
        ("SESSION_RATE_PER_ADDRESS", "100", "must be a rate such as 100/minute"),
        ("SESSION_RATE_PER_CALLER", "0/minute", "must be a rate such as 100/minute"),
        ("SESSION_GUESSES_PER_ADDRESS", "", "must be a rate such as 100/minute"),
        ("SESSION_GUESSES_PER_CALLER", "ten/minute", "must be a rate such as 100/minute"),
        ("SESSION_AUDIT_LOG", "stdout", "must be off, stderr, or a path that contains /"),
    ],
)
def test_the_error_contains_the_variable_the_valid_values_and_the_value(
    load: Load, variable: str, value: str, requirement: str
) -> None:
    with pytest.raises(StartupError) as error:
        load(**{variable: value})

    assert str(error.value).startswith(f"{variable} {requirement}")
    assert str(error.value).endswith(f" (got {value})")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("networks", "error"),
    [
        ("10.0.0.0/8 balancer", "'balancer' must be an IP address or a network"),
        ("10.0.0.1/8", "'10.0.0.1/8' must be an IP address or a network (10.0.0.1/8 has host bits set)"),
    ],
)
def test_the_error_of_a_list_names_the_invalid_entry(load: Load, networks: str, error: str) -> None:
    with pytest.raises(StartupError) as caught:
        load(TRUSTED_PROXIES=networks)

    assert str(caught.value).startswith(f"TRUSTED_PROXIES: {error}")


@pytest.mark.parametrize(
    ("environment", "start"),
    [
        ({"SESSION_API_KEYS": ""}, "SESSION_API_KEYS must hold at least one entry"),
        (
            {"SESSION_API_KEYS": "web:read:hunter2"},
            "SESSION_API_KEYS: entry 1: must have the form name:scopes:sha256:digest",
        ),
        (
            KEYS | {"SESSION_API_KEYS_FILE": "/keys"},
            "SESSION_API_KEYS must not be set together with",
        ),
        (JWT, "SESSION_JWT_JWKS_URL or SESSION_JWT_SECRET must be set"),
        (SECRET, "SESSION_JWT_ISSUER must be set"),
        (JWKS, "SESSION_JWT_ISSUER must be set"),
        (JWT | SECRET | {"SESSION_JWT_AUDIENCE": ""}, "SESSION_JWT_AUDIENCE must not be empty"),
        (JWT | SECRET | JWKS, "SESSION_JWT_SECRET must not be set together with SESSION_JWT_JWKS_URL"),
        (JWT | {"SESSION_JWT_SECRET": "hunter2"}, "SESSION_JWT_SECRET must have at least 32 bytes, and be random"),
        (JWT | {"SESSION_JWT_JWKS_URL": "http://u:hunter2@i.example"}, "SESSION_JWT_JWKS_URL must start with https://"),
        (JWT | {"SESSION_JWT_JWKS_URL": "http://127.0.0.1.example/"}, "SESSION_JWT_JWKS_URL must start with https://"),
    ],
    ids=range(11),
)
def test_errors_about_keys_and_tokens_do_not_repeat_secrets(
    load: Load, environment: dict[str, str], start: str
) -> None:
    with pytest.raises(StartupError) as error:
        load(**environment)

    assert str(error.value).startswith(start)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


def test_all_invalid_settings_are_in_one_error(load: Load) -> None:
    with pytest.raises(StartupError) as error:
        load(PORT="x", SESSION_ERROR_FORMAT="xml")

    assert {line.partition(" ")[0] for line in str(error.value).split("\n")} == {"PORT", "SESSION_ERROR_FORMAT"}


def test_the_default_maximum_duration_must_not_be_below_the_default_timeout(load: Load) -> None:
    with pytest.raises(StartupError) as raised:
        load(SESSION_DEFAULT_TIMEOUT_MINUTES="60", SESSION_MAX_DURATION_MINUTES="59")

    assert str(raised.value) == (
        "SESSION_MAX_DURATION_MINUTES must not be less than SESSION_DEFAULT_TIMEOUT_MINUTES, which is 60 (got 59)"
    )
