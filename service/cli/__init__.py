"""Commands of the operator: `inspect`, `revoke`, `hash` and `key`."""
