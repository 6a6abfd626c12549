-- Count the sessions of several shards at one moment.
-- returns {"counts", now_ms, near_expiration, {total, expired, ...}}: two numbers per shard, and one for all of them.
--         An index of a wrong type is empty.
local indexes = KEYS   -- for each shard: ids by expiresAt, and ids by the start of their warning
local args = {
    counts_near = ARGV[1],   -- 'true' to count sessions near their expiration, which doubles the cost; otherwise 0
}

local now_ms = server_time_ms()
local near_expiration, counts = 0, {}

local function count(...)
    local number = redis.pcall(...)
    return type(number) == 'number' and number or 0
end

for position = 1, #indexes, 2 do
    local expired = count('ZCOUNT', indexes[position], '-inf', now_ms)
    counts[position], counts[position + 1] = count('ZCARD', indexes[position]), expired
    if args.counts_near == 'true' then   -- the warnings of expired sessions have started too
        local warned = count('ZCOUNT', indexes[position + 1], '-inf', now_ms)
        near_expiration = near_expiration + math.max(warned - expired, 0)
    end
end
return {'counts', now_ms, near_expiration, counts}
