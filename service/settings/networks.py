"""Lists of IP networks."""

from ipaddress import IPv4Network, IPv6Network, ip_network

Network = IPv4Network | IPv6Network


def parse_networks(text: str) -> list[Network]:
    """Parse addresses and networks separated by whitespace or commas. Raises ValueError with the first wrong one."""
    return [_parse_network(word) for word in text.replace(",", " ").split()]


def _parse_network(word: str) -> Network:
    try:
        return ip_network(word)
    except ValueError as error:
        raise ValueError(f"{word!r} must be an IP address or a network ({error})") from None
