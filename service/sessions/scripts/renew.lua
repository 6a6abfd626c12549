-- Extend a live session by a full timeout from now, within its maximum duration.
-- returns {"live", now_ms, session} | {"at_maximum", created_at_ms, max_duration_minutes, expires_at_ms}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    expiry    = KEYS[3],   -- the shard's ids by expiresAt
    warning   = KEYS[4],   -- the shard's ids by the start of their warning
}
local args = {
    id           = ARGV[1],
    retention_ms = ARGV[2],
    owner_id     = ARGV[3],   -- the user that must own the session; empty: any
}

local now_ms = server_time_ms()
local session, reply = read_live_session(keys, now_ms, args.owner_id)
if not session then return reply end
if is_at_maximum(session) then
    return {'at_maximum', session[createdAt], session[maxDurationMinutes], session[expiresAt]}
end

renew_session(keys, args, session, now_ms)
return {'live', now_ms, session}
