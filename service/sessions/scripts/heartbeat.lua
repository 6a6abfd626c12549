-- Record an activity in a live session; where it renews itself and is not at its maximum duration, renew it too.
-- returns {"live", now_ms, session} | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
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

if session[autoRenew] == 'true' and not at_maximum(session) then
    renew(keys, args, session, now_ms)
else
    session[lastActivity] = whole(now_ms)
    redis.call('HSET', keys.session, 'lastActivity', session[lastActivity])
end
return {'live', now_ms, session}
