-- Lease deliveries of an agent's inbox to one consumer, the oldest first.
-- returns {"leased", next_in_ms, {member, attempt, ...}}: next_in_ms is the time until the next delivery; -1: none waits
local keys = {
    inbox    = KEYS[1],   -- deliveries by the time from which they may be delivered
    attempts = KEYS[2],   -- number of deliveries
}
local args = {
    limit    = ARGV[1],   -- the most deliveries to lease
    lease_ms = ARGV[2],
}

delete_wrong_type(keys.inbox, 'ZSCORE', '')
delete_wrong_type(keys.attempts, 'HEXISTS', '')
local now_ms = server_time_ms()
local leased = {}
local members = redis.call('ZRANGE', keys.inbox, '-inf', whole(now_ms), 'BYSCORE', 'LIMIT', 0, args.limit)
for _, member in ipairs(members) do
    redis.call('ZADD', keys.inbox, whole(now_ms + args.lease_ms), member)
    leased[#leased + 1] = member
    local attempt = redis.pcall('HINCRBY', keys.attempts, member, 1)
    if type(attempt) == 'table' then   -- no number, after a manual change
        redis.call('HSET', keys.attempts, member, 1)
        attempt = 1
    end
    leased[#leased + 1] = attempt
end
if #members > 0 then redis.call('PEXPIREAT', keys.attempts, redis.call('PEXPIRETIME', keys.inbox)) end
local next_entry = redis.call('ZRANGE', keys.inbox, 0, 0, 'WITHSCORES')
local next_in_ms = next_entry[2] and math.max(next_entry[2] - now_ms, 0) or -1
return {'leased', next_in_ms, leased}
