"""Real processes under load while replicas, Redis or the network between them fail."""
