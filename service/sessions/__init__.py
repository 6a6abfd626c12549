"""Sessions in Redis: their lifecycle, keys, Lua scripts, indexes, caps and events."""
