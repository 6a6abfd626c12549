"""The ways to Redis: what is asked leaves in batches, for one server, one behind Sentinel or a Cluster."""
