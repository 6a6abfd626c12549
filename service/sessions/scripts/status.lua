-- Judge whether a session lives, and say why where it does not.
-- returns {"living"} | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"} | {"unreadable"} (a key is no hash of ours)
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
}

local readable, session, ended = pcall(living, keys, clock())
if not readable then return {'unreadable'} end
if session then return {'living'} end
return ended
