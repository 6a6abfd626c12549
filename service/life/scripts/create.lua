-- Bring a session to life under an id that was never used.
-- returns {"live", now_ms, session} | {"taken"} | {"revoked"} (while it was on its way)
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
    created   = KEYS[5],   -- its shard's ids by createdAt
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
}

if redis.call('EXISTS', keys.session, keys.tombstone) > 0 then
    if redis.call('HEXISTS', keys.tombstone, 'revokedAt') == 1 then return {'revoked'} end
    return {'taken'}
end

local now_ms = clock()
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
return {'live', now_ms, session}
