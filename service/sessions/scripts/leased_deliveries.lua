-- Find the deliveries that are neither completed nor available to other consumers.
-- returns {"leased", {member, ...}}
local keys = {
    inbox = KEYS[1],   -- deliveries by the time from which they may be delivered
}
local args = {
    members = ARGV[1],   -- separated by line breaks
}

delete_wrong_type(keys.inbox, 'ZSCORE', '')
local now_ms = server_time_ms()
local leased = {}
for member in args.members:gmatch('[^\n]+') do
    local leased_until = redis.call('ZSCORE', keys.inbox, member)
    if leased_until and tonumber(leased_until) > now_ms then leased[#leased + 1] = member end
end
return {'leased', leased}
