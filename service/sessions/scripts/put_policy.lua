-- Replace an agent's timeout policy by the given members.
-- returns {"put", policy}
local keys = {
    policy = KEYS[1],   -- policy hash
}
local args = {
    timeout_minutes           = ARGV[1],   -- empty: the policy does not set it, like the next three
    auto_renew                = ARGV[2],   -- 'true' | 'false'
    max_duration_minutes      = ARGV[3],
    warning_threshold_minutes = ARGV[4],
}

local given, omitted = {}, {}
local function add(field, value)
    if value == '' then
        table.insert(omitted, field)
    else
        table.insert(given, field)
        table.insert(given, value)
    end
end
add('timeoutMinutes', args.timeout_minutes)
add('autoRenew', args.auto_renew)
add('maxDurationMinutes', args.max_duration_minutes)
add('warningThresholdMinutes', args.warning_threshold_minutes)

redis.call('HSET', keys.policy, 'updatedAt', whole(server_time_ms()), unpack(given))
if #omitted > 0 then redis.call('HDEL', keys.policy, unpack(omitted)) end
return {'put', redis.call('HMGET', keys.policy,
    'timeoutMinutes', 'autoRenew', 'maxDurationMinutes', 'warningThresholdMinutes', 'updatedAt')}
