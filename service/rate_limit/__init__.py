"""Limits on requests and failed lookups, for each address and each caller."""
