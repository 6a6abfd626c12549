"""Redis clients: batch commands of concurrent requests, for one server, Sentinel or a cluster."""
