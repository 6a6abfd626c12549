-- What the scripts share that list an id: how a owner_index takes it, ahead of the session itself, and how long a owner_index lasts.

-- Put an id there, and drop those older than any life. `created_at` is empty where its session is created now.
-- Returns the lookup's end.
local function add_to_owner_index(owner_index, id, created_at, owner_index_lifetime_ms, now_ms)
    if created_at == '' then created_at = whole(now_ms) end
    local lifetime_ms = math.max(owner_index_lifetime_ms, now_ms - created_at)   -- it may have begun under settings that allow more

    redis.call('ZADD', owner_index, 'NX', created_at, id)

    -- Replicas may differ in their settings, so the lookup's end never moves nearer, and lies twice a life ahead: then
    -- what is left to the owner_index is more than the age of any session in it that still lives, whoever let that in.
    local ends_at = math.max(redis.call('PEXPIRETIME', owner_index), now_ms + 2 * lifetime_ms)
    redis.call('PEXPIREAT', owner_index, whole(ends_at))
    redis.call('ZREMRANGEBYSCORE', owner_index, '-inf', whole(now_ms - (ends_at - now_ms)))
    return ends_at
end
