"""Benchmarks of the service, compared with a bare aiohttp handler and with other servers."""
