-- Bring a session to life under an id that was never used; with a record, unless that leads to another session already.
-- returns {"live", now_ms, session} | {"taken"} | {"revoked"} (while it was on its way)
--       | {"repeated", id, fingerprint} (of whoever came first)
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"} (it has ended before it could be gone on with)
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
    created   = KEYS[5],   -- its shard's ids by createdAt
    record    = KEYS[6],   -- only of a creation that may be repeated: hash that leads to the first one's session
}
local args = {
    id                        = ARGV[1],
    agent_id                  = ARGV[2],
    user_id                   = ARGV[3],
    timeout_minutes           = ARGV[4],
    auto_renew                = ARGV[5],   -- "true" | "false"
    max_duration_minutes      = ARGV[6],
    warning_threshold_minutes = ARGV[7],
    metadata                  = ARGV[8],   -- JSON, never opened here
    retention_ms              = ARGV[9],
    fingerprint               = ARGV[10],  -- this and the next only with a record
    record_lifetime_ms            = ARGV[11],
}

local now_ms = clock()

-- This creation was begun before, and others may have been told of its session. Unless they have changed it, it is given
-- the configuration that it should have had.
local function go_on()
    local session, ended = living(keys, now_ms)
    if ended then
        redis.call('DEL', keys.record)
        return ended
    end
    if session[revision] == '1' then
        session[timeoutMinutes], session[autoRenew] = args.timeout_minutes, args.auto_renew
        session[maxDurationMinutes] = args.max_duration_minutes
        session[warningThresholdMinutes] = args.warning_threshold_minutes
        place(keys, args, session,
            'timeoutMinutes', args.timeout_minutes,
            'autoRenew', args.auto_renew,
            'maxDurationMinutes', args.max_duration_minutes,
            'warningThresholdMinutes', args.warning_threshold_minutes)
    end
    return {'live', now_ms, session}
end

if keys.record then
    local first, fingerprint = unpack(redis.call('HMGET', keys.record, 'sessionId', 'fingerprint'))
    if first == args.id then return go_on() end
    if first then return {'repeated', first, fingerprint or ''} end
end

if redis.call('EXISTS', keys.session, keys.tombstone) > 0 then
    if redis.call('HEXISTS', keys.tombstone, 'revokedAt') == 1 then return {'revoked'} end
    return {'taken'}
end

local now = whole(now_ms)
local session = {
    args.agent_id, args.user_id, now, now, now, '', args.timeout_minutes, args.auto_renew, args.max_duration_minutes,
    args.warning_threshold_minutes, '0', '1', args.metadata,
}
place(keys, args, session,
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
