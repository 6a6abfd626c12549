"""The process of the service: start, workers, embedded server, shutdown."""
