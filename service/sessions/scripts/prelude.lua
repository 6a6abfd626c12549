-- What the scripts of a session share: the rule of its end, and the one place where a session is set in time.
-- Instants are milliseconds.

-- A failover may bring a server whose clock is behind: an end this close ahead counts as reached.
local CLOCK_TOLERANCE_MS = 5000

-- A session is the list of its fields' values, as strings, in the order in which `living` reads them: scripts answer
-- with it, and each name here is a place in it.
local agentId, userId, createdAt, lastActivity, renewedAt, expiresAt, timeoutMinutes, autoRenew, maxDurationMinutes,
    warningThresholdMinutes, renewalCount, revision, metadata = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13

local function in_ms(minutes) return math.floor(minutes * 60000 + 0.5) end

-- The latest instant that renewals can reach.
local function maximum_of(session) return session[createdAt] + in_ms(session[maxDurationMinutes]) end

-- expires_at_ms, reason
local function end_of(session)
    local inactive = session[renewedAt] + in_ms(session[timeoutMinutes])
    local maximum = maximum_of(session)
    if maximum <= inactive then return maximum, 'max_duration' end
    return inactive, 'inactivity'
end

local function at_maximum(session) return tonumber(session[expiresAt]) >= maximum_of(session) end

-- A session that lives; else nil and the answer that says why not:
-- {"expired", expires_at_ms, reason} | {"missing"} | {"lost"} (the hash is gone, but its end is still ahead).
-- With an `owner_id`, sessions and tombstones of other users are missing.
local function living(keys, now_ms, owner_id)
    local function is_foreign(user_id) return (owner_id or '') ~= '' and user_id ~= owner_id end

    local session = redis.call('HMGET', keys.session,
        'agentId', 'userId', 'createdAt', 'lastActivity', 'renewedAt', 'expiresAt', 'timeoutMinutes', 'autoRenew',
        'maxDurationMinutes', 'warningThresholdMinutes', 'renewalCount', 'revision', 'metadata')
    if session[expiresAt] and tonumber(session[expiresAt]) > now_ms then
        if is_foreign(session[userId]) then return nil, {'missing'} end
        return session
    end
    local tombstone = redis.call('HMGET', keys.tombstone, 'expiresAt', 'reason', 'userId')
    if not tombstone[1] or is_foreign(tombstone[3]) then return nil, {'missing'} end
    if tonumber(tombstone[1]) > now_ms + CLOCK_TOLERANCE_MS then return nil, {'lost'} end
    return nil, {'expired', tombstone[1], tombstone[2]}
end

-- Set a session in time: write its end and the fields given as name, value, ... with both TTLs, its tombstone and its
-- shard's indexes. HSET comes first: if memory is short it is refused, and nothing has been written yet.
local function place(keys, args, session, ...)
    local expires_at, reason = end_of(session)
    local stored_end = whole(expires_at)
    session[expiresAt] = stored_end
    redis.call('HSET', keys.session, 'expiresAt', stored_end, ...)
    redis.call('PEXPIREAT', keys.session, stored_end)
    redis.call('HSET', keys.tombstone, 'expiresAt', stored_end, 'reason', reason)
    redis.call('PEXPIREAT', keys.tombstone, whole(expires_at + args.retention_ms))
    redis.call('ZADD', keys.expiry, stored_end, args.id)
    redis.call('ZADD', keys.warning, whole(expires_at - in_ms(session[warningThresholdMinutes])), args.id)
end

-- Let nothing stay of a session: it is unknown from now on.
local function erase(keys, args)
    redis.call('DEL', keys.session, keys.tombstone)
    redis.call('ZREM', keys.expiry, args.id)
    redis.call('ZREM', keys.warning, args.id)
    redis.call('ZREM', keys.created, args.id)
end

local function renew(keys, args, session, now_ms)
    local now = whole(now_ms)
    session[lastActivity] = now
    session[renewedAt] = now
    session[renewalCount] = whole(session[renewalCount] + 1)
    place(keys, args, session, 'lastActivity', now, 'renewedAt', now, 'renewalCount', session[renewalCount])
end
