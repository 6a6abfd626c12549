-- End a live session if it is of the given agent and user; of one that is not there yet, leave a mark against its creation.
-- returns {"revoked", agent_id, user_id} | {"other"} (it lives, and is of others) | {"marked"}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410; or the mark
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
    created   = KEYS[5],   -- its shard's ids by createdAt
}
local args = {
    id           = ARGV[1],
    agent_id     = ARGV[2],   -- empty: any agent's
    user_id      = ARGV[3],   -- empty: any user's
    marker_lifetime_ms = ARGV[4],   -- 0: leave no mark
}

local function others(wanted, actual) return wanted ~= '' and wanted ~= actual end

local now_ms = clock()
local session, ended = living(keys, now_ms)
if session then
    if others(args.agent_id, session[agentId]) or others(args.user_id, session[userId]) then return {'other'} end
    erase(keys, args)
    return {'revoked', session[agentId], session[userId]}
end
if ended[1] ~= 'missing' or args.marker_lifetime_ms == '0' then return ended end

redis.call('HSET', keys.tombstone, 'revokedAt', whole(now_ms))
redis.call('PEXPIREAT', keys.tombstone, whole(now_ms + args.marker_lifetime_ms))
return {'marked'}
