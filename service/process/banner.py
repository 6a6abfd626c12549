"""What the service says on stdout once it serves."""

import sys

from service.settings import Settings
from service.settings.redis_url import redis_cli


def announce(address: str, url: str, settings: Settings, workers: int = 1) -> None:
    """Say where it listens, where its data is, at `url`, and by how many workers it serves where there are several."""
    data = "the Redis of REDIS_URL" if settings.redis_url else f"{settings.session_data_dir} (an embedded Valkey)"
    several = f"  workers        {workers}\n" if workers > 1 else ""
    sys.stdout.write(
        f"Session service listening on {address}\n"
        f"  documentation  {address}/docs\n"
        f"{several}"
        f"  data           {data}\n"
        f"  look inside    {redis_cli(url)}\n"
    )
    sys.stdout.flush()
