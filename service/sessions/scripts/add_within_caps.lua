-- Put an id into lookups, ahead of the session itself, unless one of them holds as many as its cap: then into none.
-- returns {"listed"} | {"full", owner, number, unknown, others}: whose is full first, counted from 0; how many it holds;
--         {id, ...} that are not known to live by now, the longest unknown first; and of those that are known to, where
--         activity is kept {id, bound, ...} from the least recently active on, else {id, ...} by chance
local keys = KEYS   -- of each owner in turn: its ids by the ends they were seen to have, by activity, and the owner_index
local args = {
    id             = ARGV[1],
    owner_index_lifetime_ms = ARGV[2],   -- as for a owner_index without a cap
    first_cap      = ARGV[3],   -- the most that the first owner may have; 0: any number
    second_cap     = ARGV[4],   -- likewise of the second, where there is one
    evicts         = ARGV[5],   -- 'true' where activity is kept
    most_unknown   = ARGV[6],   -- how many to tell of each
    most_others    = ARGV[7],
}

local OWNER = 3   -- keys
local caps = {tonumber(args.first_cap), tonumber(args.second_cap)}
local now_ms = clock()

-- What lies beside a owner_index holds what that holds. What it lacks gets 0: nothing is known of it.
local function level(beside, owner_index)
    if redis.call('ZCARD', beside) == redis.call('ZCARD', owner_index) then return end
    redis.call('ZINTERSTORE', beside, 2, beside, owner_index, 'WEIGHTS', 1, 0)
    redis.call('ZUNIONSTORE', beside, 2, beside, owner_index, 'WEIGHTS', 1, 0)
    redis.call('PEXPIREAT', beside, whole(math.max(redis.call('PEXPIRETIME', owner_index), now_ms + 2 * args.owner_index_lifetime_ms)))
end

local function unknown_in(ends, owner_index)
    level(ends, owner_index)
    return redis.call('ZRANGE', ends, '-inf', whole(now_ms), 'BYSCORE', 'LIMIT', 0, args.most_unknown)
end

local function others_in(activity, owner_index)
    if args.evicts ~= 'true' then return redis.call('ZRANDMEMBER', owner_index, args.most_others) end
    level(activity, owner_index)
    return redis.call('ZRANGE', activity, 0, args.most_others - 1, 'WITHSCORES')
end

for owner, cap in ipairs(caps) do
    local ends, activity, owner_index = unpack(keys, OWNER * (owner - 1) + 1, OWNER * owner)
    local number = owner_index and redis.call('ZCARD', owner_index) or 0
    if cap > 0 and number >= cap then
        return {'full', owner - 1, number, unknown_in(ends, owner_index), others_in(activity, owner_index)}
    end
end

local function keep(beside, ends_at)
    redis.call('ZADD', beside, whole(now_ms), args.id)
    redis.call('PEXPIREAT', beside, whole(ends_at))
end

for first = 1, #keys, OWNER do
    local ends, activity, owner_index = unpack(keys, first, first + OWNER - 1)
    local ends_at = add_to_owner_index(owner_index, args.id, '', args.owner_index_lifetime_ms, now_ms)
    if caps[(first - 1) / OWNER + 1] > 0 then
        keep(ends, ends_at)
        if args.evicts == 'true' then keep(activity, ends_at) end
    end
end
return {'listed'}
