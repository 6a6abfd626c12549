-- Replace a live session's metadata, if nothing has changed the session since the revision it was merged over.
-- returns {"live", now_ms, session} | {"changed_meanwhile", now_ms, session}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
}
local args = {
    revision = ARGV[1],   -- that of the metadata which was merged over
    metadata = ARGV[2],   -- JSON, never opened here
}

local now_ms = clock()
local session, ended = living(keys, now_ms)
if ended then return ended end
if session[revision] ~= args.revision then return {'changed_meanwhile', now_ms, session} end

session[revision] = whole(session[revision] + 1)
session[metadata] = args.metadata
redis.call('HSET', keys.session, 'metadata', session[metadata], 'revision', session[revision])
return {'live', now_ms, session}
