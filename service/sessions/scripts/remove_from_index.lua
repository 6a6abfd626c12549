-- Take the id of a session that does not live out of a owner_index, unless a creation of it may still be on its way.
-- returns {"delisted"} | {"young"} | {"missing"}
local keys = KEYS   -- where there are caps what lies beside the lookup; last the lookup: ids by the time of their creation
local args = {
    id     = ARGV[1],
    age_ms = ARGV[2],   -- how long ago it was listed at least; 0: the session is known to have lived
}

local listed_at = redis.call('ZSCORE', keys[#keys], args.id)
if not listed_at then return {'missing'} end
if tonumber(args.age_ms) > 0 and listed_at + args.age_ms > clock() then return {'young'} end
for _, key in ipairs(keys) do redis.call('ZREM', key, args.id) end
return {'delisted'}
