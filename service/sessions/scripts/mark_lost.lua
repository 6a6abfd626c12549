-- Mark a session as lost once, if its hash disappeared early. Without a tombstone, delete its index entries.
-- returns {"marked"} | {"already_marked"} | {"live"} | {"expired", expires_at_ms, reason} | {"missing"}
--       | {"unreadable"}
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
    id = ARGV[1],
}

local now_ms = server_time_ms()
local session, reply = read_live_session_if_readable(keys, now_ms)
if session then return {'live'} end
if reply[1] == 'unreadable' then return {'unreadable'} end
if reply[1] == 'lost' then
    if redis.call('HSETNX', keys.tombstone, 'lostAt', whole(now_ms)) == 0 then return {'already_marked'} end
    return {'marked'}
end
if reply[1] == 'expired' then return {'expired', reply[2], reply[3]} end

local expires_at = redis.call('ZSCORE', keys.expiry, args.id)
if not expires_at or tonumber(expires_at) <= now_ms + CLOCK_TOLERANCE_MS then return {'missing'} end   -- to be swept
delete_session(keys, args)
return {'marked'}
