-- Read a session if it is live, and otherwise report why it is not; writes nothing.
-- returns {"live", now_ms, session} | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
--       | {"unreadable"} (a key has the wrong type)
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
}
local args = {
    owner_id = ARGV[1],   -- the user the session must belong to; empty: any
}

local now_ms = clock()
local is_readable, session, ended = pcall(living, keys, now_ms, args.owner_id)
if not is_readable then return {'unreadable'} end
if session then return {'live', now_ms, session} end
return ended
