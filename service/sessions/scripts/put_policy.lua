-- Put an agent's policy in the place of whatever was there: it holds the members that are given, and no others.
-- returns {"put", policy}
local keys = {
    policy = KEYS[1],   -- hash of the policy
}
local args = {
    timeout_minutes           = ARGV[1],   -- these four: empty where not given
    auto_renew                = ARGV[2],   -- "true" | "false"
    max_duration_minutes      = ARGV[3],
    warning_threshold_minutes = ARGV[4],
}

local given, left_out = {}, {}
local function sort_out(field, value)
    if value == '' then
        table.insert(left_out, field)
    else
        table.insert(given, field)
        table.insert(given, value)
    end
end
sort_out('timeoutMinutes', args.timeout_minutes)
sort_out('autoRenew', args.auto_renew)
sort_out('maxDurationMinutes', args.max_duration_minutes)
sort_out('warningThresholdMinutes', args.warning_threshold_minutes)

redis.call('HSET', keys.policy, 'updatedAt', whole(clock()), unpack(given))
if #left_out > 0 then redis.call('HDEL', keys.policy, unpack(left_out)) end
return {'put', redis.call('HMGET', keys.policy,
    'timeoutMinutes', 'autoRenew', 'maxDurationMinutes', 'warningThresholdMinutes', 'updatedAt')}
