"""Where a service that asks nobody who they are may listen."""

import pytest

from service.auth.authenticator import require_authentication
from service.errors import StartupError
from service.settings import Settings
from tests.auth.conftest import ENTRIES

EXPOSED = ["0.0.0.0", "::", "", "192.0.2.1", "fd00::1", "127.example", "127.0.0.1.example", "::ffff:192.0.2.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_may_do_everything(host: str) -> None:
    require_authentication(Settings(host=host))


@pytest.mark.parametrize("host", EXPOSED)
def test_others_may_not(host: str) -> None:
    with pytest.raises(StartupError, match=f"^HOST={host}: requires authentication.*SESSION_ALLOW_ANONYMOUS=true"):
        require_authentication(Settings(host=host))


@pytest.mark.parametrize("host", EXPOSED)
def test_with_keys_it_may_listen_everywhere(host: str, settings: Settings) -> None:
    require_authentication(Settings(host=host, session_api_keys=ENTRIES))


@pytest.mark.parametrize("host", EXPOSED)
def test_it_may_be_told_that_others_may_do_everything(host: str) -> None:
    require_authentication(Settings(host=host, session_allow_anonymous=True))
