-- What the scripts share that list an id: how a lookup takes it, ahead of the session itself, and how long a lookup lasts.

-- Put an id there, and drop those older than any life. `created_at` is empty where its session is created now.
-- Returns the lookup's end.
local function enlist(lookup, id, created_at, lookup_life_ms, now_ms)
    if created_at == '' then created_at = whole(now_ms) end
    local life_ms = math.max(lookup_life_ms, now_ms - created_at)   -- it may have begun under settings that allow more

    redis.call('ZADD', lookup, 'NX', created_at, id)

    -- Replicas may differ in their settings, so the lookup's end never moves nearer, and lies twice a life ahead: then
    -- what is left to the lookup is more than the age of any session in it that still lives, whoever let that in.
    local ends_at = math.max(redis.call('PEXPIRETIME', lookup), now_ms + 2 * life_ms)
    redis.call('PEXPIREAT', lookup, whole(ends_at))
    redis.call('ZREMRANGEBYSCORE', lookup, '-inf', whole(now_ms - (ends_at - now_ms)))
    return ends_at
end
