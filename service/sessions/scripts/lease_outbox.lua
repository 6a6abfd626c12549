-- Lease messages that no replica has dispatched in time, the oldest first.
-- returns {"leased", {member, ...}}
local keys = {
    outbox = KEYS[1],   -- the shard's messages that are not in an inbox yet
}
local args = {
    limit    = ARGV[1],   -- the most messages to lease
    lease_ms = ARGV[2],
}

delete_wrong_type(keys.outbox, 'ZSCORE', '')
local now_ms = server_time_ms()
local members = redis.call('ZRANGE', keys.outbox, '-inf', whole(now_ms), 'BYSCORE', 'LIMIT', 0, args.limit)
for _, member in ipairs(members) do redis.call('ZADD', keys.outbox, whole(now_ms + args.lease_ms), member) end
return {'leased', members}
