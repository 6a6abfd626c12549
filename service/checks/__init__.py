"""Whether the service may serve: its layout, its Redis, its health."""
