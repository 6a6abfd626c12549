-- Take a session that has ended out of its shard, and leave of its tombstone what a 410 needs.
-- returns {"swept", reason} | {"counted"} (as lost, when it was found so) | {"forgotten"} (its tombstone was gone too)
--       | {"missing"} (swept already) | {"living"} (it has not ended; the index is set right)
local keys = {
    session   = KEYS[1],   -- hash of the session; gone, unless someone kept it past its end
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
    created   = KEYS[5],   -- its shard's ids by createdAt
}
local args = {
    id           = ARGV[1],
    retention_ms = ARGV[2],   -- for a tombstone that someone took its TTL from
}

local now_ms = clock()
local score = redis.call('ZSCORE', keys.expiry, args.id)
if not score then return {'missing'} end
local session = living(keys, now_ms)
if session then
    redis.call('ZADD', keys.expiry, session[expiresAt], args.id)
    return {'living'}
end

local expires_at, reason, lost_at = unpack(redis.call('HMGET', keys.tombstone, 'expiresAt', 'reason', 'lostAt'))
redis.call('DEL', keys.session)
redis.call('HDEL', keys.tombstone, 'agentId', 'userId', 'lostAt')
if redis.call('PTTL', keys.tombstone) == -1 then
    redis.call('PEXPIREAT', keys.tombstone, whole((expires_at or score) + args.retention_ms))
end
redis.call('ZREM', keys.created, args.id)
redis.call('ZREM', keys.warning, args.id)
redis.call('ZREM', keys.expiry, args.id)
if not reason then return {'forgotten'} end
if lost_at then return {'counted'} end
return {'swept', reason}
