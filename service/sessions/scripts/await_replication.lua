-- Write a record as it is: whoever waits for replicas then waits until they have it, and all that was written before it.
-- returns {"vouched"} | {"missing"}
local keys = {
    record = KEYS[1],   -- hash that leads to a session, of a creation that may be repeated
}

local ends_at = redis.call('PEXPIRETIME', keys.record)
if ends_at < 0 then return {'missing'} end
redis.call('PEXPIREAT', keys.record, whole(ends_at))
return {'vouched'}
