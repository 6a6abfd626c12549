"""Invalid values in `timeoutConfig`, and values that are clamped to their bounds."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient
from redis.asyncio import Redis

from service.settings import Settings
from tests.bad_input.helpers import create_with, invalid_fields
from tests.conftest import AGENT, HttpClient, ServiceServer
from tests.test_walkthrough import MINUTE_MS, SESSIONS, get_session, open_session

pytestmark = pytest.mark.asyncio(loop_scope="package")

MINUTES = ["timeoutMinutes", "maxDurationMinutes", "warningThresholdMinutes"]


async def timeout_errors(client: HttpClient, **timeout_config: object) -> dict[str, str]:
    return await invalid_fields(await create_with(client, timeoutConfig=timeout_config))


@pytest.mark.parametrize("value", [[], "30", 30, True])
async def test_a_timeout_configuration_must_be_an_object(service: HttpClient, value: object) -> None:
    fields = await invalid_fields(await create_with(service, timeoutConfig=value))

    assert fields == {"timeoutConfig": "must be an object"}


@pytest.mark.parametrize("member", MINUTES)
@pytest.mark.parametrize("value", [None, "30", True, False, [], {}])
async def test_minutes_must_be_numbers(service: HttpClient, member: str, value: object) -> None:
    fields = await timeout_errors(service, **{member: value})

    assert fields == {f"timeoutConfig.{member}": "must be a number of minutes"}


@pytest.mark.parametrize("value", [None, 0, 1, "true", [], {}])
async def test_auto_renew_must_be_true_or_false(service: HttpClient, value: object) -> None:
    fields = await timeout_errors(service, autoRenew=value)

    assert fields == {"timeoutConfig.autoRenew": "must be true or false"}


@pytest.mark.parametrize(
    ("member", "value", "bounds"),
    [
        ("timeoutMinutes", 4, "between 5 and 1440"),
        ("timeoutMinutes", 1441, "between 5 and 1440"),
        ("timeoutMinutes", 0, "between 5 and 1440"),
        ("timeoutMinutes", -30, "between 5 and 1440"),
        ("timeoutMinutes", 1e308, "between 5 and 1440"),
        ("timeoutMinutes", 10**30, "between 5 and 1440"),
        ("maxDurationMinutes", 4, "between 5 and 2880"),
        ("maxDurationMinutes", 2881, "between 5 and 2880"),
        ("warningThresholdMinutes", 0, "between 1 and 1440"),
        ("warningThresholdMinutes", 1441, "between 1 and 1440"),
    ],
)
async def test_the_error_names_the_bounds(service: HttpClient, member: str, value: float, bounds: str) -> None:
    fields = await timeout_errors(service, **{member: value})

    assert fields == {f"timeoutConfig.{member}": f"must be a whole number {bounds} (got {float(value):g})"}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("timeoutMinutes", 5),
        ("timeoutMinutes", 1440),
        ("maxDurationMinutes", 5),
        ("maxDurationMinutes", 2880),
        ("warningThresholdMinutes", 1),
        ("warningThresholdMinutes", 1440),
        ("timeoutMinutes", 30.0),
    ],
)
async def test_the_bounds_are_inclusive(service: HttpClient, member: str, value: float) -> None:
    session_id = await open_session(service, timeoutConfig={member: value})

    session = await get_session(service, session_id)
    assert session["timeoutConfig"][member] == value


@pytest.mark.parametrize("member", MINUTES)
async def test_minutes_must_be_whole(service: HttpClient, member: str) -> None:
    fields = await timeout_errors(service, **{member: 30.5})

    assert fields[f"timeoutConfig.{member}"].startswith("must be a whole number between ")


async def test_the_maximum_duration_must_not_be_below_the_timeout_of_the_request(service: HttpClient) -> None:
    fields = await timeout_errors(service, maxDurationMinutes=59, timeoutMinutes=60)

    assert fields == {"timeoutConfig.maxDurationMinutes": "must be a whole number between 60 and 2880 (got 59)"}


async def test_the_maximum_duration_may_be_below_the_default_timeout(service: HttpClient) -> None:
    session_id = await open_session(service, timeoutConfig={"maxDurationMinutes": 10})

    session = await get_session(service, session_id)
    assert session["timeRemaining"] <= 10 * MINUTE_MS


async def test_a_timeout_above_the_default_maximum_duration_raises_it(service: HttpClient) -> None:
    session_id = await open_session(service, timeoutConfig={"timeoutMinutes": 1440})

    session = await get_session(service, session_id)
    assert session["timeoutConfig"]["maxDurationMinutes"] == 1440
    assert session["timeRemaining"] > 1430 * MINUTE_MS


async def test_unknown_members_of_a_timeout_configuration_are_invalid(service: HttpClient) -> None:
    fields = await timeout_errors(service, timeoutminutes=30)

    assert fields == {"timeoutConfig.timeoutminutes": "is not a member of a timeout configuration"}


async def test_a_timeout_update_has_the_same_rules(service: HttpClient) -> None:
    session_id = await open_session(service)
    changes = {"timeoutMinutes": 4, "maxDurationMinutes": 12.5, "autoRenew": None, "agentId": AGENT}

    response = await service.patch(f"{SESSIONS}/{session_id}/timeout", json=changes)

    assert sorted(await invalid_fields(response)) == ["agentId", "autoRenew", "maxDurationMinutes", "timeoutMinutes"]


# SESSION_OUT_OF_RANGE=clamp


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def clamping_service(shared_redis: Redis) -> AsyncIterator[HttpClient]:
    async with TestClient(ServiceServer(Settings(session_out_of_range="clamp"), shared_redis)) as client:
        yield client


@pytest.mark.parametrize(
    ("timeout_config", "member", "clamped"),
    [
        ({"timeoutMinutes": 1}, "timeoutMinutes", 5),
        ({"timeoutMinutes": -1e308}, "timeoutMinutes", 5),
        ({"timeoutMinutes": 1441}, "timeoutMinutes", 1440),
        ({"timeoutMinutes": 10**30}, "timeoutMinutes", 1440),
        ({"timeoutMinutes": 0.5}, "timeoutMinutes", 5),
        ({"maxDurationMinutes": 1}, "maxDurationMinutes", 5),
        ({"maxDurationMinutes": 100_000}, "maxDurationMinutes", 2880),
        ({"maxDurationMinutes": 10, "timeoutMinutes": 60}, "maxDurationMinutes", 60),
        ({"maxDurationMinutes": 10, "timeoutMinutes": 9999}, "maxDurationMinutes", 1440),
        ({"warningThresholdMinutes": 0}, "warningThresholdMinutes", 1),
        ({"warningThresholdMinutes": 9999}, "warningThresholdMinutes", 1440),
    ],
)
async def test_minutes_are_clamped_to_their_bounds_on_request(
    clamping_service: HttpClient, timeout_config: dict[str, float], member: str, clamped: int
) -> None:
    session_id = await open_session(clamping_service, timeoutConfig=timeout_config)

    session = await get_session(clamping_service, session_id)
    assert session["timeoutConfig"][member] == clamped


@pytest.mark.parametrize("value", ["1", None, True, 30.5])
async def test_values_other_than_whole_numbers_are_not_clamped(clamping_service: HttpClient, value: object) -> None:
    fields = await timeout_errors(clamping_service, timeoutMinutes=value)

    assert list(fields) == ["timeoutConfig.timeoutMinutes"]
