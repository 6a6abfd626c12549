"""The reasons why sessions end. Lua scripts write the first two into tombstones."""

CAUSES_OF_EXPIRY = {"inactivity": " because of inactivity", "max_duration": " at its maximum duration"}
"""The reasons of an expired session, with the words that error messages use."""

END_REASONS = (*CAUSES_OF_EXPIRY, "deleted", "revoked", "evicted", "lost", "unknown")
"""All reasons that metrics and logs contain."""
