"""Run tests of the Redis client on one server and on a Cluster."""

import pytest

from service.settings.redis_url import Kind


@pytest.fixture(params=["server", "cluster"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind
