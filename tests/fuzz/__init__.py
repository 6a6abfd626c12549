"""Send random, malformed and smuggled requests to real service processes."""
