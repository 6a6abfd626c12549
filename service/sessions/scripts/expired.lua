-- Tell which sessions of a shard have come to their end by its own server's clock, the longest ended first.
-- returns {"due", now_ms, {id, expires_at_ms, ...}} | {"unreadable", why}
local keys = {
    expiry = KEYS[1],   -- the shard's ids by expiresAt
}
local args = {
    number = ARGV[1],   -- the most to tell
}

local now_ms = clock()
local due = redis.pcall('ZRANGE', keys.expiry, '-inf', whole(now_ms), 'BYSCORE', 'LIMIT', 0, args.number, 'WITHSCORES')
if due.err then return {'unreadable', due.err} end
return {'due', now_ms, due}
