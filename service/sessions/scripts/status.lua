-- Read a session if it is live, and otherwise say why it is not; writes nothing.
-- returns {"live", now_ms, session} | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
--       | {"unreadable"} (a key has the wrong type)
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
}
local args = {
    owner_id = ARGV[1],   -- the user that must own the session; empty: any
}

local now_ms = server_time_ms()
local is_readable, session, reply = pcall(read_live_session, keys, now_ms, args.owner_id)
if not is_readable then return {'unreadable'} end
if not session then return reply end
return {'live', now_ms, session}
