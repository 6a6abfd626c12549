-- End a live session at its owner's wish: nothing of it stays, so it is unknown from now on.
-- returns {"deleted", agent_id, user_id} | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
    created   = KEYS[5],   -- its shard's ids by createdAt
    record    = KEYS[6],   -- only where a creation is taken back that may be repeated: it goes if it leads here
}
local args = {
    id       = ARGV[1],
    owner_id = ARGV[2],   -- the user the session must belong to; empty: any
}

if keys.record and redis.call('HMGET', keys.record, 'sessionId')[1] == args.id then redis.call('DEL', keys.record) end
local session, ended = living(keys, clock(), args.owner_id)
if ended then return ended end

erase(keys, args)
return {'deleted', session[agentId], session[userId]}
