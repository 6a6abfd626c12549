-- What every script shares: Redis's clock, the rule of a session's end, and the one place where a session is set in
-- time. Instants are milliseconds. `fields` is a session's hash by field name, every value a string.

-- A failover may bring a server whose clock is behind: an end this close ahead counts as reached.
local CLOCK_TOLERANCE_MS = 5000

local function whole(number) return string.format('%.0f', number) end

local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function in_ms(minutes) return math.floor(minutes * 60000 + 0.5) end

-- The latest instant that renewals can reach.
local function maximum_of(fields) return fields.createdAt + in_ms(fields.maxDurationMinutes) end

-- expires_at_ms, reason
local function end_of(fields)
    local inactive = fields.renewedAt + in_ms(fields.timeoutMinutes)
    local maximum = maximum_of(fields)
    if maximum <= inactive then return maximum, 'max_duration' end
    return inactive, 'inactivity'
end

local function at_maximum(fields) return tonumber(fields.expiresAt) >= maximum_of(fields) end

-- The fields of a session that lives, by name, and the flat list they came in; else nil and the answer that says why
-- not: {"expired", expires_at_ms, reason} | {"missing"} | {"lost"} (the hash is gone, but its end is still ahead).
local function living(keys, now_ms)
    local flat = redis.call('HGETALL', keys.session)
    local fields = {}
    for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
    if fields.expiresAt and tonumber(fields.expiresAt) > now_ms then return fields, flat end
    local tombstone = redis.call('HMGET', keys.tombstone, 'expiresAt', 'reason')
    if not tombstone[1] then return nil, {'missing'} end
    if tonumber(tombstone[1]) > now_ms + CLOCK_TOLERANCE_MS then return nil, {'lost'} end
    return nil, {'expired', tombstone[1], tombstone[2]}
end

-- Set a session in time: write what `changes` says (field, value, ...) with its end, both TTLs, its tombstone and its
-- shard's indexes. HSET comes first: if memory is short it is refused, and nothing has been written yet.
local function place(keys, args, fields, changes)
    local expires_at, reason = end_of(fields)
    local stored_end = whole(expires_at)
    local last = #changes
    changes[last + 1] = 'expiresAt'
    changes[last + 2] = stored_end
    redis.call('HSET', keys.session, unpack(changes))
    redis.call('PEXPIREAT', keys.session, stored_end)
    redis.call('HSET', keys.tombstone, 'expiresAt', stored_end, 'reason', reason)
    redis.call('PEXPIREAT', keys.tombstone, expires_at + args.retention_ms)
    redis.call('ZADD', keys.expiry, stored_end, args.id)
    redis.call('ZADD', keys.warning, expires_at - in_ms(fields.warningThresholdMinutes), args.id)
end

local function renew(keys, args, fields, now_ms)
    local now = whole(now_ms)
    fields.renewedAt = now
    local changes = {'lastActivity', now, 'renewedAt', now, 'renewalCount', whole(fields.renewalCount + 1)}
    place(keys, args, fields, changes)
    return changes
end
