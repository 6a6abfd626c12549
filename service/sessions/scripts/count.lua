-- Count the sessions of shards in one moment: of each those listed and those that have ended, of all those near their end.
-- returns {"tally", now_ms, near, {listed, ended, ...}}: two numbers for each shard
local indexes = KEYS   -- of each shard in turn its ids by expiresAt, and by the start of their warning
local args = {
    near = ARGV[1],   -- 'true' to count those near their end, which costs as much again; else they are 0
}

local now_ms = clock()
local near, counts = 0, {}
for place = 1, #indexes, 2 do
    local ended = redis.call('ZCOUNT', indexes[place], '-inf', now_ms)
    counts[place], counts[place + 1] = redis.call('ZCARD', indexes[place]), ended
    if args.near == 'true' then   -- the ended are among the warned too: a warning begins before its end
        near = near + math.max(redis.call('ZCOUNT', indexes[place + 1], '-inf', now_ms) - ended, 0)
    end
end
return {'tally', now_ms, near, counts}
