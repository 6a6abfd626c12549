"""Published clients and documented samples of the reference implementation run against the service."""
