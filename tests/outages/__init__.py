"""Tests of the service during failures of Redis."""
