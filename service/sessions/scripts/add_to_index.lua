-- Add an id to an owner index, before its session is created or to repair the index.
-- returns {"added"}
local keys = {
    owner_index = KEYS[1],   -- ids by creation time
}
local args = {
    id                      = ARGV[1],
    owner_index_lifetime_ms = ARGV[2],   -- the longest lifetime of a session under the caller's settings, and a day
    created_at              = ARGV[3],   -- empty: the session is about to be created
}

add_to_owner_index(keys.owner_index, args.id, args.created_at, args.owner_index_lifetime_ms, server_time_ms())
return {'added'}
