"""Headers that every answer has: a browser that is shown one guesses nothing, runs nothing of it, and tells nobody.

`Strict-Transport-Security` is not among them: it belongs to what ends TLS.
"""

from aiohttp import web

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Give them to a response that aiohttp is about to send, where it has not its own; and take aiohttp's name away."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.popall("Server", None)
