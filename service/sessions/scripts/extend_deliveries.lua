-- Extend the leases of deliveries. A delivery that was completed stays completed.
-- returns {"extended", number}
local keys = {
    inbox = KEYS[1],   -- deliveries by the time from which they may be delivered
}
local args = {
    lease_ms = ARGV[1],
    members  = ARGV[2],   -- separated by line breaks
}

delete_wrong_type(keys.inbox, 'ZSCORE', '')
local number = 0
local lease_until = whole(server_time_ms() + args.lease_ms)
for member in args.members:gmatch('[^\n]+') do
    if redis.call('ZSCORE', keys.inbox, member) then
        redis.call('ZADD', keys.inbox, 'XX', lease_until, member)
        number = number + 1
    end
end
return {'extended', number}
