-- Remove deliveries that were processed.
-- returns {"completed", number}
local keys = {
    inbox    = KEYS[1],   -- deliveries by the time from which they may be delivered
    attempts = KEYS[2],   -- number of deliveries
}
local args = {
    members = ARGV[1],   -- separated by line breaks
}

delete_wrong_type(keys.inbox, 'ZSCORE', '')
delete_wrong_type(keys.attempts, 'HEXISTS', '')
local number = 0
for member in args.members:gmatch('[^\n]+') do
    number = number + redis.call('ZREM', keys.inbox, member)
    redis.call('HDEL', keys.attempts, member)
end
if number > 0 then redis.pcall('SPUBLISH', keys.inbox:gsub('inbox$', 'live'), 'inbox') end
return {'completed', number}
