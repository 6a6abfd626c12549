-- Replace a live session's metadata, unless the session changed after the caller read it.
-- returns {"live", now_ms, session} | {"changed", now_ms, session}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
}
local args = {
    id       = ARGV[1],
    revision = ARGV[2],   -- the revision that the caller read
    metadata = ARGV[3],   -- JSON, never parsed here
}

local now_ms = server_time_ms()
local session, reply = read_live_session(keys, now_ms)
if not session then return reply end
if session[revision] ~= args.revision then return {'changed', now_ms, session} end

session[revision] = whole(session[revision] + 1)
session[metadata] = args.metadata
redis.call('HSET', keys.session, 'metadata', session[metadata], 'revision', session[revision])
announce(keys, args, 'session')
return {'live', now_ms, session}
