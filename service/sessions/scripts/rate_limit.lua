-- Take one from a bucket that fills evenly, unless it is empty, or another bucket is, which bars the way while it is.
-- returns {"taken", left, full_in_us} | {"empty", next_in_us} | {"barred", next_in_us} | {"open"} (nothing was to be taken)
local keys = {
    bucket     = KEYS[1],   -- the instant at which it will be full, in microseconds; a full one is not there
    blocked_by = KEYS[2],   -- the same of the bucket that may bar the way
}
local args = {
    quota           = ARGV[1],   -- what the bucket holds; 0: nothing is to be taken
    interval_us     = ARGV[2],   -- in which one comes back
    bar_quota       = ARGV[3],   -- 0: nothing bars the way
    bar_interval_us = ARGV[4],
}

local now_us = server_time_ms() * 1000

local function put(key, full_at)
    redis.call('SET', key, whole(full_at), 'PXAT', whole(math.ceil(full_at / 1000)))
end

-- How long until a bucket is full, and how long until there is one in it. Whatever is no number is put right by the next
-- that is taken. What is further ahead than a whole bucket is of other settings or another server's clock: it is empty now.
local function standing(key, quota, interval_us)
    local whole_us = quota * interval_us
    local full_in_us = math.max((tonumber(redis.pcall('GET', key)) or 0) - now_us, 0)
    if full_in_us > whole_us then
        full_in_us = whole_us
        put(key, now_us + whole_us)
    end
    return full_in_us, full_in_us + interval_us - whole_us
end

if args.bar_quota ~= '0' then
    local _, next_in_us = standing(keys.blocked_by, args.bar_quota, args.bar_interval_us)
    if next_in_us > 0 then return {'barred', next_in_us} end
end
if args.quota == '0' then return {'open'} end

local full_in_us, next_in_us = standing(keys.bucket, args.quota, args.interval_us)
if next_in_us > 0 then return {'empty', next_in_us} end
full_in_us = full_in_us + args.interval_us
put(keys.bucket, now_us + full_in_us)
return {'taken', math.floor((args.quota * args.interval_us - full_in_us) / args.interval_us), full_in_us}
