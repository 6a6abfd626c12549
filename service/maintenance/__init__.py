"""Background work on Redis: sweep expired sessions, repair indexes, check servers, and report health."""
