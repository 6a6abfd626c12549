"""Tests of messages, inboxes and event streams."""
