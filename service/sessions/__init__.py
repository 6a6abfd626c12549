"""The life of a session in Redis: its verbs, its keys, its scripts, and who is told of its turns."""
