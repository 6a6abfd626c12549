-- Put an id into a user's or an agent's lookup, ahead of the session itself, and drop those older than any life there.
-- returns {"listed"}
local keys = {
    lookup = KEYS[1],   -- ids by the time of their creation
}
local args = {
    id             = ARGV[1],
    lookup_life_ms = ARGV[2],   -- the longest life of a session under the caller's settings, and a day
    created_at     = ARGV[3],   -- where the session is there already; empty: it is created now
}

enlist(keys.lookup, args.id, args.created_at, args.lookup_life_ms, clock())
return {'listed'}
