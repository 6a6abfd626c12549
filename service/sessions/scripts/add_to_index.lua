-- Put an id into a user's or an agent's owner_index, ahead of the session itself, and drop those older than any life there.
-- returns {"listed"}
local keys = {
    owner_index = KEYS[1],   -- ids by the time of their creation
}
local args = {
    id             = ARGV[1],
    owner_index_lifetime_ms = ARGV[2],   -- the longest life of a session under the caller's settings, and a day
    created_at     = ARGV[3],   -- where the session is there already; empty: it is created now
}

add_to_owner_index(keys.owner_index, args.id, args.created_at, args.owner_index_lifetime_ms, clock())
return {'listed'}
