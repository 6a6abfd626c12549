-- Delete a live or unreadable session with its tombstone, so that its id is unknown from now on.
-- returns {"deleted", agent_id, user_id} | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    expiry    = KEYS[3],   -- the shard's ids by expiresAt
    warning   = KEYS[4],   -- the shard's ids by the start of their warning
    created   = KEYS[5],   -- the shard's ids by createdAt
    messages  = KEYS[6],   -- stream of the session's messages
    sends     = KEYS[7],   -- state of the messages
    chunks    = KEYS[8],   -- stream of recent parts of answers
    record    = KEYS[9],   -- idempotency record, deleted if it names this session; nil without one
}
local args = {
    id       = ARGV[1],
    owner_id = ARGV[2],   -- the user that must own the session; empty: any
}

if keys.record and redis.call('HMGET', keys.record, 'sessionId')[1] == args.id then redis.call('DEL', keys.record) end
local session, reply = read_live_session_if_readable(keys, server_time_ms(), args.owner_id)
if not session and reply[1] == 'unreadable' then
    if args.owner_id ~= '' and args.owner_id ~= reply[3] then return {'missing'} end
    delete_session(keys, args)
    return {'deleted', reply[2], reply[3]}
end
if not session then return reply end

delete_session(keys, args)
return {'deleted', session[agentId], session[userId]}
