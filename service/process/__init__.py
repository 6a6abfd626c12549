"""The service as processes: started, listening, drained; its workers, and the Redis of its own."""
