-- Count a shard's sessions in one moment: those listed, of them those that have ended, and of the others those near it.
-- returns {"tally", now_ms, listed, ended, near}
local keys = {
    expiry  = KEYS[1],   -- its ids by expiresAt
    warning = KEYS[2],   -- its ids by the start of their warning
}

local now_ms = clock()
local listed = redis.call('ZCARD', keys.expiry)
local ended = redis.call('ZCOUNT', keys.expiry, '-inf', now_ms)
local warned = redis.call('ZCOUNT', keys.warning, '-inf', now_ms)   -- the ended too: a warning begins before its end
return {'tally', now_ms, listed, ended, math.max(warned - ended, 0)}
