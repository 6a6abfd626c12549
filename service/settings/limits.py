"""How much anybody may ask, and where requests come from."""

from pydantic import field_validator
from pydantic_settings import BaseSettings

from service.http.addresses import Network, read_networks


class LimitSettings(BaseSettings):
    """The proxies that are believed about where a request comes from."""

    trusted_proxies: str = ""

    @property
    def trusted_networks(self) -> list[Network]:
        return read_networks(self.trusted_proxies)

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, proxies: str) -> str:
        read_networks(proxies)
        return proxies
