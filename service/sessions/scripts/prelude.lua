-- The rules of a session's lifetime, for every script that takes a session. Times are in milliseconds.

-- After a failover to a server with a slower clock, an expiry this close ahead counts as reached.
local CLOCK_TOLERANCE_MS = 5000

-- A session is a list of field values, as strings, in the order in which read_live_session reads them. Scripts reply
-- with this list. The names below are the positions in it.
local agentId, userId, createdAt, lastActivity, renewedAt, expiresAt, timeoutMinutes, autoRenew, maxDurationMinutes,
    warningThresholdMinutes, renewalCount, revision, metadata = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13

local function minutes_to_ms(minutes) return math.floor(minutes * 60000 + 0.5) end

local function latest_possible_expiry(session)
    return session[createdAt] + minutes_to_ms(session[maxDurationMinutes])
end

-- returns expires_at_ms, reason
local function compute_expiry(session)
    local by_inactivity = session[renewedAt] + minutes_to_ms(session[timeoutMinutes])
    local by_max_duration = latest_possible_expiry(session)
    if by_max_duration <= by_inactivity then return by_max_duration, 'max_duration' end
    return by_inactivity, 'inactivity'
end

local function is_at_maximum(session) return tonumber(session[expiresAt]) >= latest_possible_expiry(session) end

-- Identify the owner of a swept session without storing the user id. The key, which contains the session id, is a salt.
local function hash_owner(keys, user_id) return redis.sha1hex(keys.tombstone .. ' ' .. user_id):sub(1, 16) end

-- Read a session if it is live. Otherwise return nil and the script's reply:
-- {"expired", expires_at_ms, reason} | {"missing"} | {"lost"} (the hash disappeared before the session's expiry).
-- With an owner_id, sessions and tombstones of other users are missing. The owner "agent:<id>" is an agent.
local function read_live_session(keys, now_ms, owner_id)
    local function has_other_owner(user_id, owner_hash, agent_id)
        if (owner_id or '') == '' then return false end
        if owner_id:sub(1, 6) == 'agent:' then   -- a swept tombstone does not contain the agent, but the messages do
            return owner_id ~= 'agent:' .. tostring(agent_id or redis.pcall('HGET', keys.session .. ':sends', 'agentId'))
        end
        if user_id or not owner_hash then return user_id ~= owner_id end
        return owner_hash ~= hash_owner(keys, owner_id)
    end

    local session = redis.call('HMGET', keys.session,
        'agentId', 'userId', 'createdAt', 'lastActivity', 'renewedAt', 'expiresAt', 'timeoutMinutes', 'autoRenew',
        'maxDurationMinutes', 'warningThresholdMinutes', 'renewalCount', 'revision', 'metadata')
    if session[expiresAt] and tonumber(session[expiresAt]) > now_ms then
        if has_other_owner(session[userId], nil, session[agentId]) then return nil, {'missing'} end
        return session
    end
    local expires_at, reason, user_id, owner_hash, agent_id = unpack(
        redis.call('HMGET', keys.tombstone, 'expiresAt', 'reason', 'userId', 'ownerHash', 'agentId'))
    if not expires_at or has_other_owner(user_id, owner_hash, agent_id) then return nil, {'missing'} end
    if tonumber(expires_at) > now_ms + CLOCK_TOLERANCE_MS then return nil, {'lost'} end
    return nil, {'expired', expires_at, reason}
end

-- Read a session like read_live_session. If its record is unreadable, for example after a manual change, the reply is
-- {"unreadable", agent_id, user_id}: the owners as far as the session or its tombstone has them.
local function read_live_session_if_readable(keys, now_ms, owner_id)
    local is_readable, session, reply = pcall(read_live_session, keys, now_ms, owner_id)
    if is_readable then return session, reply end
    local of_session = redis.pcall('HMGET', keys.session, 'agentId', 'userId')   -- an error has no numbered members
    local of_tombstone = redis.pcall('HMGET', keys.tombstone, 'agentId', 'userId')
    return nil, {'unreadable', of_session[1] or of_tombstone[1] or '', of_session[2] or of_tombstone[2] or ''}
end

-- Compute the session's expiry and save it with the given fields (name, value, ...), both TTLs, the tombstone and the
-- indexes. HSET comes first: if memory is short, Redis rejects it and nothing is written.
local function save_expiry(keys, args, session, ...)
    local expires_at_ms, reason = compute_expiry(session)
    local expires_at = whole(expires_at_ms)
    session[expiresAt] = expires_at
    redis.call('HSET', keys.session, 'expiresAt', expires_at, ...)
    redis.call('PEXPIREAT', keys.session, expires_at)
    redis.call('HSET', keys.tombstone, 'expiresAt', expires_at, 'reason', reason)
    redis.call('PEXPIREAT', keys.tombstone, whole(expires_at_ms + args.retention_ms))
    redis.call('ZADD', keys.expiry, expires_at, args.id)
    redis.call('ZADD', keys.warning, whole(expires_at_ms - minutes_to_ms(session[warningThresholdMinutes])), args.id)
end

-- Announce a change to replicas that stream the session. They read the change itself. The channel is no key: while a
-- Cluster moves the slot, a script with a missing key would have to wait. An account without permission for the channel
-- must not fail the change.
local function announce(keys, args, change)
    local prefix, tag = keys.session:match('^(.*)session:({[^}]*}):')
    redis.pcall('SPUBLISH', prefix .. 'sessions:' .. tag .. ':live', change .. ' ' .. args.id)
end

-- Delete a session with its tombstone, messages and index entries.
local function delete_session(keys, args)
    redis.call('DEL', keys.session, keys.tombstone, keys.messages, keys.sends, keys.chunks)
    announce(keys, args, 'session')
    redis.call('ZREM', keys.expiry, args.id)
    redis.call('ZREM', keys.warning, args.id)
    redis.call('ZREM', keys.created, args.id)
end

local function renew_session(keys, args, session, now_ms)
    local now = whole(now_ms)
    session[lastActivity] = now
    session[renewedAt] = now
    session[renewalCount] = whole(session[renewalCount] + 1)
    save_expiry(keys, args, session, 'lastActivity', now, 'renewedAt', now, 'renewalCount', session[renewalCount])
    announce(keys, args, 'session')
end
