-- Remove an expired session from its shard's indexes, and keep of its tombstone only what a 410 needs.
-- returns {"swept", reason} | {"swept_lost"} (counted when it was marked) | {"swept_unknown"} (without a tombstone)
--       | {"swept_unreadable"} (deleted) | {"missing"} (swept already) | {"live"} (the index is corrected)
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    expiry    = KEYS[3],   -- the shard's ids by expiresAt
    warning   = KEYS[4],   -- the shard's ids by the start of their warning
    created   = KEYS[5],   -- the shard's ids by createdAt
    messages  = KEYS[6],   -- stream of the session's messages
    sends     = KEYS[7],   -- state of the messages
    chunks    = KEYS[8],   -- stream of recent parts of answers
}
local args = {
    id           = ARGV[1],
    retention_ms = ARGV[2],   -- for a tombstone that lost its TTL
}

local score = redis.call('ZSCORE', keys.expiry, args.id)
if not score then return {'missing'} end
local session, reply = read_live_session_if_readable(keys, server_time_ms())
if reply and reply[1] == 'unreadable' then
    delete_session(keys, args)
    return {'swept_unreadable'}
end
if session then
    redis.call('ZADD', keys.expiry, session[expiresAt], args.id)
    return {'live'}
end

local expires_at, reason, lost_at, user_id = unpack(
    redis.call('HMGET', keys.tombstone, 'expiresAt', 'reason', 'lostAt', 'userId'))
redis.call('DEL', keys.session)   -- before HSET, which Redis rejects as the first write of a script if memory is short
if user_id then redis.call('HSET', keys.tombstone, 'ownerHash', hash_owner(keys, user_id)) end
redis.call('HDEL', keys.tombstone, 'agentId', 'userId', 'lostAt')
if redis.call('PTTL', keys.tombstone) == -1 then
    redis.call('PEXPIREAT', keys.tombstone, whole((expires_at or score) + args.retention_ms))
end
local messages_expire_at = whole((expires_at or score) + args.retention_ms)
redis.call('PEXPIREAT', keys.messages, messages_expire_at)
redis.call('PEXPIREAT', keys.sends, messages_expire_at)
redis.call('ZREM', keys.created, args.id)
redis.call('ZREM', keys.warning, args.id)
redis.call('ZREM', keys.expiry, args.id)
if not reason then return {'swept_unknown'} end
if lost_at then return {'swept_lost'} end
return {'swept', reason}
