-- Put an id into a user's or an agent's lookup, ahead of the session itself, and drop those older than any life.
-- returns {"listed"}
local keys = {
    lookup = KEYS[1],   -- ids by the time of their creation
}
local args = {
    id             = ARGV[1],
    lookup_life_ms = ARGV[2],   -- the longest life of a session, and a day
}

local now_ms = clock()
redis.call('ZADD', keys.lookup, 'NX', whole(now_ms), args.id)
redis.call('PEXPIREAT', keys.lookup, whole(now_ms + args.lookup_life_ms))
redis.call('ZREMRANGEBYSCORE', keys.lookup, '-inf', whole(now_ms - args.lookup_life_ms))
return {'listed'}
