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

-- The fields of a session that lives; else nil and the answer that says why not:
-- {"expired", expires_at_ms, reason} | {"missing"} | {"lost"} (the hash is gone, but its end is still ahead).
local function living(keys, now_ms)
    local flat = redis.call('HGETALL', keys.session)
    local fields = {}
    for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
    if fields.expiresAt and tonumber(fields.expiresAt) > now_ms then return fields end
    local tombstone = redis.call('HMGET', keys.tombstone, 'expiresAt', 'reason')
    if not tombstone[1] then return nil, {'missing'} end
    if tonumber(tombstone[1]) > now_ms + CLOCK_TOLERANCE_MS then return nil, {'lost'} end
    return nil, {'expired', tombstone[1], tombstone[2]}
end

-- Set a session in time: write the `changed` fields with its end, both TTLs, its tombstone and its shard's indexes.
-- HSET comes first: if memory is short it is refused, and nothing has been written yet.
local function place(keys, args, fields, changed)
    local expires_at, reason = end_of(fields)
    fields.expiresAt = whole(expires_at)
    local write = {'HSET', keys.session}
    for _, name in ipairs(changed) do
        write[#write + 1] = name
        write[#write + 1] = fields[name]
    end
    redis.call(unpack(write))
    redis.call('PEXPIREAT', keys.session, fields.expiresAt)
    redis.call('HSET', keys.tombstone, 'agentId', fields.agentId, 'userId', fields.userId,
        'expiresAt', fields.expiresAt, 'reason', reason)
    redis.call('PEXPIREAT', keys.tombstone, whole(expires_at + args.retention_ms))
    redis.call('ZADD', keys.expiry, fields.expiresAt, args.id)
    redis.call('ZADD', keys.warning, whole(expires_at - in_ms(fields.warningThresholdMinutes)), args.id)
end

local function renew(keys, args, fields, now_ms)
    fields.renewedAt = whole(now_ms)
    fields.lastActivity = fields.renewedAt
    fields.renewalCount = whole(fields.renewalCount + 1)
    place(keys, args, fields, {'lastActivity', 'renewedAt', 'expiresAt', 'renewalCount'})
end

local function live(fields, now_ms)
    local flat = {}
    for name, value in pairs(fields) do
        flat[#flat + 1] = name
        flat[#flat + 1] = value
    end
    return {'live', now_ms, flat}
end
