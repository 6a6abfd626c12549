-- End a live session of an agent or a user to make room for another of theirs, unless it was active since it was looked at.
-- returns {"evicted", agent_id, user_id} | {"active"} | {"other"} (it lives, and is of others)
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
    created   = KEYS[5],   -- its shard's ids by createdAt
}
local args = {
    id            = ARGV[1],
    owner_id      = ARGV[2],   -- its agent or its user
    last_activity = ARGV[3],   -- as it was seen
}

local session, ended = living(keys, clock())
if ended then return ended end
if session[agentId] ~= args.owner_id and session[userId] ~= args.owner_id then return {'other'} end
if session[lastActivity] ~= args.last_activity then return {'active'} end

erase(keys, args)
return {'evicted', session[agentId], session[userId]}
