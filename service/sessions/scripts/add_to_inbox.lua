-- Add a message, or the cancellation of one, to an agent's inbox. Cancelling a message that no agent received removes it.
-- returns {"added"}
local keys = {
    inbox    = KEYS[1],   -- deliveries by the time from which they may be delivered
    attempts = KEYS[2],   -- number of deliveries
}
local args = {
    message     = ARGV[1],   -- '<sessionId> <messageId>'
    is_cancel   = ARGV[2],   -- 'true' | 'false'
    lifetime_ms = ARGV[3],
}

delete_wrong_type(keys.inbox, 'ZSCORE', '')
delete_wrong_type(keys.attempts, 'HEXISTS', '')
local member = args.message
if args.is_cancel == 'true' then
    local is_waiting = redis.call('ZSCORE', keys.inbox, args.message)
    if is_waiting and redis.call('HEXISTS', keys.attempts, args.message) == 0 then
        redis.call('ZREM', keys.inbox, args.message)
        return {'added'}
    end
    member = args.message .. ' cancel'
end
redis.call('ZADD', keys.inbox, 'NX', whole(server_time_ms()), member)
redis.call('PEXPIRE', keys.inbox, args.lifetime_ms)
redis.pcall('SPUBLISH', keys.inbox:gsub('inbox$', 'live'), 'inbox')
return {'added'}
