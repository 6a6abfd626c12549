-- Adding an id to an owner index, for every script that does so.

-- Add an id, extend the index's TTL and remove ids that are older than any session can be. `created_at` is empty for a
-- session that is about to be created. Returns the time at which the index expires.
local function add_to_owner_index(owner_index, id, created_at, owner_index_lifetime_ms, now_ms)
    if created_at == '' then created_at = whole(now_ms) end
    local lifetime_ms = math.max(owner_index_lifetime_ms, now_ms - created_at)   -- other settings may have allowed more

    redis.call('ZADD', owner_index, 'NX', created_at, id)

    -- Replicas may have different settings. So the index's expiry never moves closer, and is two lifetimes ahead. The
    -- remaining time then exceeds the age of every live session in the index, whichever replica created it.
    local expires_at_ms = math.max(redis.call('PEXPIRETIME', owner_index), now_ms + 2 * lifetime_ms)
    redis.call('PEXPIREAT', owner_index, whole(expires_at_ms))
    redis.call('ZREMRANGEBYSCORE', owner_index, '-inf', whole(now_ms - (expires_at_ms - now_ms)))
    return expires_at_ms
end
