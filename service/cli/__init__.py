"""Commands of the operator: `inspect`, `revoke`, `hash` and `key`. Also `demo-agent`, a client."""
