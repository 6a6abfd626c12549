-- Take one request from a bucket that refills at a constant rate, unless it or the bucket that blocks it is empty.
-- returns {"taken", remaining, full_in_us} | {"empty", next_in_us} | {"blocked", next_in_us} | {"not_limited"}
local keys = {
    bucket     = KEYS[1],   -- time in microseconds at which the bucket is full; missing: it is full
    blocked_by = KEYS[2],   -- the same for the bucket that blocks it while empty
}
local args = {
    quota                  = ARGV[1],   -- the bucket's capacity; 0: take nothing
    interval_us            = ARGV[2],   -- how long it takes to refill one request
    blocked_by_quota       = ARGV[3],   -- 0: nothing blocks the bucket
    blocked_by_interval_us = ARGV[4],
}

local now_us = server_time_ms() * 1000

local function save(key, full_at_us)
    redis.call('SET', key, whole(full_at_us), 'PXAT', whole(math.ceil(full_at_us / 1000)))
end

-- Return how long until a bucket is full, and how long until it holds a request. A value that is not a number counts as
-- full. A time further ahead than a full refill takes comes from other settings or another clock: the bucket is empty.
local function read_bucket(key, quota, interval_us)
    local refill_us = quota * interval_us
    local full_in_us = math.max((tonumber(redis.pcall('GET', key)) or 0) - now_us, 0)
    if full_in_us > refill_us then
        full_in_us = refill_us
        save(key, now_us + refill_us)
    end
    return full_in_us, full_in_us + interval_us - refill_us
end

if args.blocked_by_quota ~= '0' then
    local _, next_in_us = read_bucket(keys.blocked_by, args.blocked_by_quota, args.blocked_by_interval_us)
    if next_in_us > 0 then return {'blocked', next_in_us} end
end
if args.quota == '0' then return {'not_limited'} end

local full_in_us, next_in_us = read_bucket(keys.bucket, args.quota, args.interval_us)
if next_in_us > 0 then return {'empty', next_in_us} end
full_in_us = full_in_us + args.interval_us
save(keys.bucket, now_us + full_in_us)
return {'taken', math.floor((args.quota * args.interval_us - full_in_us) / args.interval_us), full_in_us}
