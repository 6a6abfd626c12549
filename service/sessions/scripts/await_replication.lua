-- Rewrite an idempotency record unchanged, so that the caller can wait until replicas have it and everything before it.
-- returns {"written"} | {"missing"}
local keys = {
    record = KEYS[1],   -- idempotency record
}

local expires_at_ms = redis.call('PEXPIRETIME', keys.record)
if expires_at_ms < 0 then return {'missing'} end
redis.call('PEXPIREAT', keys.record, whole(expires_at_ms))
return {'written'}
