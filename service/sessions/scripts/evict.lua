-- Delete a live session of an agent or a user to make room for another, unless it was active after the caller read it.
-- returns {"evicted", agent_id, user_id} | {"active"} | {"other_owner"}
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
    id            = ARGV[1],
    owner_id      = ARGV[2],   -- the agent or user at its cap
    last_activity = ARGV[3],   -- as the caller read it
}

local session, reply = read_live_session(keys, server_time_ms())
if not session then return reply end
if session[agentId] ~= args.owner_id and session[userId] ~= args.owner_id then return {'other_owner'} end
if session[lastActivity] ~= args.last_activity then return {'active'} end

delete_session(keys, args)
return {'evicted', session[agentId], session[userId]}
