"""What the store promises, it promises on every kind of servers."""

import pytest

from service.lanes.redis_url import Kind


@pytest.fixture(params=["server", "sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found
