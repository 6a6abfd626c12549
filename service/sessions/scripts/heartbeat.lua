-- Record an activity of a live session, and renew it if it has autoRenew and is not at its maximum duration.
-- returns {"live", now_ms, session} | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
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

if session[autoRenew] == 'true' and not is_at_maximum(session) then
    renew_session(keys, args, session, now_ms)
else
    session[lastActivity] = whole(now_ms)
    redis.call('HSET', keys.session, 'lastActivity', session[lastActivity])
end
return {'live', now_ms, session}
