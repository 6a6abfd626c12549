"""Many sessions at once: listed, counted, and ended in bulk."""
