"""Looks at sessions, and ends them, from a terminal: `python -m service inspect` and `revoke`."""
