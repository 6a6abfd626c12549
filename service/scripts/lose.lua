-- Mark a session as lost, once: its hash is gone although its end is still ahead.
-- returns {"lost"} | {"known"} (it was marked already) | {"living"} | {"expired", expires_at_ms, reason} | {"missing"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
}

local now_ms = clock()
local session, ended = living(keys, now_ms)
if session then return {'living'} end
if ended[1] ~= 'lost' then return ended end

if redis.call('HSETNX', keys.tombstone, 'lostAt', whole(now_ms)) == 0 then return {'known'} end
return {'lost'}
