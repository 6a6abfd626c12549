-- Delete a live or unreadable session of the given agent and user, or leave a marker that refuses the creation of a missing one.
-- returns {"revoked", agent_id, user_id} | {"other_owner"} | {"marked"}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
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
    id                 = ARGV[1],
    agent_id           = ARGV[2],   -- empty: any agent
    user_id            = ARGV[3],   -- empty: any user
    marker_lifetime_ms = ARGV[4],   -- 0: leave no marker
}

local function differs(expected, actual) return expected ~= '' and expected ~= actual end

local now_ms = server_time_ms()
local session, reply = read_live_session_if_readable(keys, now_ms)
local agent_id, user_id = reply and reply[2], reply and reply[3]
if session then agent_id, user_id = session[agentId], session[userId] end
if session or reply[1] == 'unreadable' then
    if differs(args.agent_id, agent_id) or differs(args.user_id, user_id) then return {'other_owner'} end
    delete_session(keys, args)
    return {'revoked', agent_id or '', user_id or ''}
end
if reply[1] ~= 'missing' or args.marker_lifetime_ms == '0' then return reply end

redis.call('HSET', keys.tombstone, 'revokedAt', whole(now_ms))
redis.call('PEXPIREAT', keys.tombstone, whole(now_ms + args.marker_lifetime_ms))
return {'marked'}
