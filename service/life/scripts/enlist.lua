-- Put an id into a user's or an agent's lookup, ahead of the session itself, and drop those older than any life there.
-- returns {"listed"}
local keys = {
    lookup = KEYS[1],   -- ids by the time of their creation
}
local args = {
    id             = ARGV[1],
    lookup_life_ms = ARGV[2],   -- the longest life of a session under the caller's settings, and a day
    created_at     = ARGV[3],   -- where the session is there already; empty: it is created now
}

local now_ms = clock()
local created_at = args.created_at
if created_at == '' then created_at = whole(now_ms) end
local life_ms = math.max(args.lookup_life_ms, now_ms - created_at)   -- it may have begun under settings that allow more

redis.call('ZADD', keys.lookup, 'NX', created_at, args.id)

-- Replicas may differ in their settings, so the lookup's end never moves nearer, and lies twice a life ahead: then what
-- is left to the lookup is more than the age of any session in it that still lives, whoever let that in.
local ends_at = math.max(redis.call('PEXPIRETIME', keys.lookup), now_ms + 2 * life_ms)
redis.call('PEXPIREAT', keys.lookup, whole(ends_at))
redis.call('ZREMRANGEBYSCORE', keys.lookup, '-inf', whole(now_ms - (ends_at - now_ms)))
return {'listed'}
