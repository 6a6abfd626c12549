-- Find expired sessions of a shard, the longest expired first.
-- returns {"found", now_ms, {id, expires_at_ms, ...}} | {"unreadable", error}
local keys = {
    expiry = KEYS[1],   -- the shard's ids by expiresAt
}
local args = {
    limit = ARGV[1],   -- the most ids to return
}

local now_ms = server_time_ms()
local found = redis.pcall('ZRANGE', keys.expiry, '-inf', whole(now_ms), 'BYSCORE', 'LIMIT', 0, args.limit, 'WITHSCORES')
if found.err then return {'unreadable', found.err} end
return {'found', now_ms, found}
