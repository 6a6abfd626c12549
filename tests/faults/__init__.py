"""Faults on real processes under load: replicas, Redis and the network between them fail, and a checker looks on."""
