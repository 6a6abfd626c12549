"""What the service tells of itself: log, metrics and traces."""
