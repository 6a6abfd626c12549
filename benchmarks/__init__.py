"""`make bench`: the throughput of a replica, relative to a bare aiohttp handler in the same run."""
