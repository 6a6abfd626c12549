"""The HTTP server. Only this package uses private names of aiohttp."""
