-- Remove the id of a session that is not live from an owner index, unless it may still be under creation.
-- returns {"removed"} | {"too_recent"} | {"missing"}
local keys = KEYS   -- with caps, the ids by known expiry and by known activity; always last, the owner index
local args = {
    id         = ARGV[1],
    min_age_ms = ARGV[2],   -- how long ago the id was added at least; 0: the session is known to have existed
}

local added_at_ms = redis.call('ZSCORE', keys[#keys], args.id)
if not added_at_ms then return {'missing'} end
if tonumber(args.min_age_ms) > 0 and added_at_ms + args.min_age_ms > server_time_ms() then return {'too_recent'} end
for _, key in ipairs(keys) do redis.call('ZREM', key, args.id) end
return {'removed'}
