-- Add an id to owner indexes before its session is created; if one of them is at its cap, add it to none.
-- returns {"added"} | {"full", owner, size, unverified, candidates}: the first owner at its cap, counted from 0; the
--         size of its index; {id, ...} of sessions that are not known to be live, longest first; and, for eviction,
--         {id, activity_bound, ...} from the least recently active, otherwise {id, ...} at random
local keys = KEYS   -- for each owner: ids by known expiry, ids by known activity, and the owner index
local args = {
    id                      = ARGV[1],
    owner_index_lifetime_ms = ARGV[2],   -- as in add_to_index.lua
    first_cap               = ARGV[3],   -- the most sessions of the first owner; 0: any number
    second_cap              = ARGV[4],   -- the same for the second owner, if there is one
    evicts                  = ARGV[5],   -- 'true' if activity is tracked
    max_unverified          = ARGV[6],   -- the most ids to return
    max_candidates          = ARGV[7],   -- likewise
}

local KEYS_PER_OWNER = 3
local caps = {tonumber(args.first_cap), tonumber(args.second_cap)}
local now_ms = server_time_ms()

-- Make `tracked` hold the same ids as the owner index. Ids that it lacks get the score 0: nothing is known about them.
local function synchronize(tracked, owner_index)
    if redis.call('ZCARD', tracked) == redis.call('ZCARD', owner_index) then return end
    redis.call('ZINTERSTORE', tracked, 2, tracked, owner_index, 'WEIGHTS', 1, 0)
    redis.call('ZUNIONSTORE', tracked, 2, tracked, owner_index, 'WEIGHTS', 1, 0)
    local expires_at_ms = math.max(redis.call('PEXPIRETIME', owner_index), now_ms + 2 * args.owner_index_lifetime_ms)
    redis.call('PEXPIREAT', tracked, whole(expires_at_ms))
end

local function find_unverified(ends, owner_index)
    synchronize(ends, owner_index)
    return redis.call('ZRANGE', ends, '-inf', whole(now_ms), 'BYSCORE', 'LIMIT', 0, args.max_unverified)
end

local function find_candidates(activity, owner_index)
    if args.evicts ~= 'true' then return redis.call('ZRANDMEMBER', owner_index, args.max_candidates) end
    synchronize(activity, owner_index)
    return redis.call('ZRANGE', activity, 0, args.max_candidates - 1, 'WITHSCORES')
end

for owner, cap in ipairs(caps) do
    local ends, activity, owner_index = unpack(keys, KEYS_PER_OWNER * (owner - 1) + 1, KEYS_PER_OWNER * owner)
    local size = owner_index and redis.call('ZCARD', owner_index) or 0
    if cap > 0 and size >= cap then
        return {'full', owner - 1, size, find_unverified(ends, owner_index), find_candidates(activity, owner_index)}
    end
end

local function track(tracked, expires_at_ms)
    redis.call('ZADD', tracked, whole(now_ms), args.id)
    redis.call('PEXPIREAT', tracked, whole(expires_at_ms))
end

for first = 1, #keys, KEYS_PER_OWNER do
    local ends, activity, owner_index = unpack(keys, first, first + KEYS_PER_OWNER - 1)
    local expires_at_ms = add_to_owner_index(owner_index, args.id, '', args.owner_index_lifetime_ms, now_ms)
    if caps[(first - 1) / KEYS_PER_OWNER + 1] > 0 then
        track(ends, expires_at_ms)
        if args.evicts == 'true' then track(activity, expires_at_ms) end
    end
end
return {'added'}
