-- Mark a session as lost, once: its hash is gone although its end is still ahead. Without a tombstone it leaves its shard.
-- returns {"lost"} | {"known"} (it was marked already) | {"living"} | {"expired", expires_at_ms, reason} | {"missing"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
    created   = KEYS[5],   -- its shard's ids by createdAt
}
local args = {
    id = ARGV[1],
}

local now_ms = clock()
local session, ended = living(keys, now_ms)
if session then return {'living'} end
if ended[1] == 'lost' then
    if redis.call('HSETNX', keys.tombstone, 'lostAt', whole(now_ms)) == 0 then return {'known'} end
    return {'lost'}
end
if ended[1] == 'expired' then return ended end

local expires_at = redis.call('ZSCORE', keys.expiry, args.id)
if not expires_at or tonumber(expires_at) <= now_ms + CLOCK_TOLERANCE_MS then return ended end   -- the sweeper's
erase(keys, args)
return {'lost'}
