-- Create a session under an unused id; with an idempotency record, only if the record names no other session.
-- returns {"live", now_ms, session} | {"taken"} | {"revoked"} (by a marker left during the creation)
--       | {"already_created", id, fingerprint} (by the first request with the record)
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"} (an earlier attempt created it, and it ended)
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    expiry    = KEYS[3],   -- the shard's ids by expiresAt
    warning   = KEYS[4],   -- the shard's ids by the start of their warning
    created   = KEYS[5],   -- the shard's ids by createdAt
    record    = KEYS[6],   -- idempotency record; nil without an Idempotency-Key
}
local args = {
    id                        = ARGV[1],
    agent_id                  = ARGV[2],
    user_id                   = ARGV[3],
    timeout_minutes           = ARGV[4],
    auto_renew                = ARGV[5],   -- 'true' | 'false'
    max_duration_minutes      = ARGV[6],
    warning_threshold_minutes = ARGV[7],
    metadata                  = ARGV[8],   -- JSON, never parsed here
    retention_ms              = ARGV[9],
    fingerprint               = ARGV[10],   -- of the request; nil without a record, like the next
    record_lifetime_ms        = ARGV[11],
}

local now_ms = server_time_ms()

-- An earlier attempt of this creation wrote the session, and other requests may have returned it. Correct its timeouts
-- unless one of them has changed it.
local function correct_earlier_attempt()
    local session, reply = read_live_session(keys, now_ms)
    if not session then
        redis.call('DEL', keys.record)
        return reply
    end
    if session[revision] == '1' then
        session[timeoutMinutes], session[autoRenew] = args.timeout_minutes, args.auto_renew
        session[maxDurationMinutes] = args.max_duration_minutes
        session[warningThresholdMinutes] = args.warning_threshold_minutes
        save_expiry(keys, args, session,
            'timeoutMinutes', args.timeout_minutes,
            'autoRenew', args.auto_renew,
            'maxDurationMinutes', args.max_duration_minutes,
            'warningThresholdMinutes', args.warning_threshold_minutes)
    end
    return {'live', now_ms, session}
end

if keys.record then
    local id, fingerprint = unpack(redis.call('HMGET', keys.record, 'sessionId', 'fingerprint'))
    if id == args.id then return correct_earlier_attempt() end
    if id then return {'already_created', id, fingerprint or ''} end
end

if redis.call('EXISTS', keys.session, keys.tombstone) > 0 then
    if redis.call('HEXISTS', keys.tombstone, 'revokedAt') == 1 then return {'revoked'} end
    return {'taken'}
end

local now = whole(now_ms)
local session = {}
session[agentId], session[userId], session[metadata] = args.agent_id, args.user_id, args.metadata
session[createdAt], session[lastActivity], session[renewedAt] = now, now, now
session[timeoutMinutes], session[autoRenew] = args.timeout_minutes, args.auto_renew
session[maxDurationMinutes] = args.max_duration_minutes
session[warningThresholdMinutes] = args.warning_threshold_minutes
session[renewalCount], session[revision] = '0', '1'
save_expiry(keys, args, session,
    'agentId', args.agent_id,
    'userId', args.user_id,
    'createdAt', now,
    'lastActivity', now,
    'renewedAt', now,
    'timeoutMinutes', args.timeout_minutes,
    'autoRenew', args.auto_renew,
    'maxDurationMinutes', args.max_duration_minutes,
    'warningThresholdMinutes', args.warning_threshold_minutes,
    'renewalCount', '0',
    'revision', '1',
    'metadata', args.metadata)
redis.call('HSET', keys.tombstone, 'agentId', args.agent_id, 'userId', args.user_id)
redis.call('ZADD', keys.created, now, args.id)
if keys.record then
    redis.call('HSET', keys.record, 'sessionId', args.id, 'fingerprint', args.fingerprint)
    redis.call('PEXPIREAT', keys.record, whole(now_ms + args.record_lifetime_ms))
end
return {'live', now_ms, session}
