-- Put an id into a user's or an agent's lookup, ahead of the session itself, and drop those older than any life.
-- returns {"listed"}
local keys = {
    lookup = KEYS[1],   -- ids by the time of their creation
}
local args = {
    id             = ARGV[1],
    lookup_life_ms = ARGV[2],   -- the longest life of a session, and a day
    created_at     = ARGV[3],   -- where the session is there already; empty: it is created now
}

local now_ms = clock()
local created_at = args.created_at
if created_at == '' then created_at = whole(now_ms) end
redis.call('ZADD', keys.lookup, 'NX', created_at, args.id)
redis.call('PEXPIREAT', keys.lookup, whole(now_ms + args.lookup_life_ms))
redis.call('ZREMRANGEBYSCORE', keys.lookup, '-inf', whole(now_ms - args.lookup_life_ms))
return {'listed'}
