"""The ElizaOS Sessions API as a standalone service with its state in Redis."""
