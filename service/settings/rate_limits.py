"""How much anybody may ask, and where requests come from."""

from pydantic import field_validator
from pydantic_settings import BaseSettings

from service.settings.networks import Network, parse_networks
from service.settings.rates import OFF, Rate, read_rate


class LimitSettings(BaseSettings):
    """Rates of requests, and of guesses among them; the proxies that are believed about where requests come from."""

    session_rate_per_address: str = OFF
    session_rate_per_caller: str = OFF
    session_guesses_per_address: str | None = None
    session_guesses_per_caller: str | None = None
    trusted_proxies: str = ""

    @property
    def rate_per_address(self) -> Rate | None:
        return read_rate(self.session_rate_per_address)

    @property
    def rate_per_caller(self) -> Rate | None:
        return read_rate(self.session_rate_per_caller)

    @property
    def guesses_per_address(self) -> Rate | None:
        return _guesses(self.session_guesses_per_address, self.rate_per_address)

    @property
    def guesses_per_caller(self) -> Rate | None:
        return _guesses(self.session_guesses_per_caller, self.rate_per_caller)

    @property
    def trusted_networks(self) -> list[Network]:
        return parse_networks(self.trusted_proxies)

    @field_validator(
        "session_rate_per_address",
        "session_rate_per_caller",
        "session_guesses_per_address",
        "session_guesses_per_caller",
    )
    @classmethod
    def _rates_can_be_read(cls, rate: str | None) -> str | None:
        if rate is not None:
            read_rate(rate)
        return rate

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, proxies: str) -> str:
        parse_networks(proxies)
        return proxies


def _guesses(given: str | None, requests: Rate | None) -> Rate | None:
    """Where nothing is said of them, a tenth of the requests: to guess is limited harder than to use."""
    if given is not None:
        return read_rate(given)
    return requests and requests.tenth
