-- Extend a live session to a full timeout from now, within its maximum duration.
-- returns {"live", now_ms, session} | {"at_maximum", created_at_ms, max_duration_minutes, expires_at_ms}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
}
local args = {
    id           = ARGV[1],
    retention_ms = ARGV[2],
    owner_id     = ARGV[3],   -- the user the session must belong to; empty: any
}

local now_ms = clock()
local session, ended = living(keys, now_ms, args.owner_id)
if ended then return ended end

if at_maximum(session) then
    return {'at_maximum', session[createdAt], session[maxDurationMinutes], session[expiresAt]}
end
renew(keys, args, session, now_ms)
return {'live', now_ms, session}
