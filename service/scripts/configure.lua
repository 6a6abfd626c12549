-- Merge a partial timeout configuration into a live session's own; its end is counted anew from the last renewal.
-- returns {"live", now_ms, {field, value, ...}, {changed field, value, ...}} | {"in_the_past", expires_at_ms}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
}
local args = {
    id                        = ARGV[1],
    timeout_minutes           = ARGV[2],   -- these four: empty where nothing is to change
    auto_renew                = ARGV[3],   -- "true" | "false"
    max_duration_minutes      = ARGV[4],
    warning_threshold_minutes = ARGV[5],
    retention_ms              = ARGV[6],
}

local now_ms = clock()
local fields, found = living(keys, now_ms)
if not fields then return found end

local changes = {'revision', whole(fields.revision + 1)}
local function merge(name, value)
    if value == '' then return end
    fields[name] = value
    changes[#changes + 1] = name
    changes[#changes + 1] = value
end
merge('timeoutMinutes', args.timeout_minutes)
merge('autoRenew', args.auto_renew)
merge('maxDurationMinutes', args.max_duration_minutes)
merge('warningThresholdMinutes', args.warning_threshold_minutes)

local expires_at = end_of(fields)
if expires_at <= now_ms then return {'in_the_past', whole(expires_at)} end

place(keys, args, fields, changes)
return {'live', now_ms, found, changes}
