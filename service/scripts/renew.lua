-- Extend a live session to a full timeout from now, within its maximum duration.
-- returns {"live", now_ms, {field, value, ...}, {changed field, value, ...}} | {"at_maximum", created_at_ms, max_duration_minutes, expires_at_ms}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
}
local args = {
    id           = ARGV[1],
    retention_ms = ARGV[2],
}

local now_ms = clock()
local fields, found = living(keys, now_ms)
if not fields then return found end

if at_maximum(fields) then return {'at_maximum', fields.createdAt, fields.maxDurationMinutes, fields.expiresAt} end
return {'live', now_ms, found, renew(keys, args, fields, now_ms)}
