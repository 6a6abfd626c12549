"""The ElizaOS Sessions API as a service of its own, with its state in Redis."""
