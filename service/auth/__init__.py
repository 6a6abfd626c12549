"""Authentication of callers by API keys and tokens, and the permissions that routes require."""
