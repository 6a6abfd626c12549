"""Live updates of sessions for listeners of this process."""
