-- List what an index holds after a place in its own order: by score and, where scores are equal, by the bytes of the id.
-- returns {"entries", {id, score, ...}}
local keys = {
    ids = KEYS[1],   -- an index or a lookup: ids by an instant
}
local args = {
    score  = ARGV[1],   -- the place; there need be no entry at it any more
    id     = ARGV[2],
    number = ARGV[3],   -- the most to list
}

-- Lua's own comparison follows the locale of the server, and Redis orders by bytes.
local function follows(one, other)
    for place = 1, math.max(#one, #other) do
        local a, b = one:byte(place) or -1, other:byte(place) or -1
        if a ~= b then return a > b end
    end
    return false
end

local first = redis.call('ZCOUNT', keys.ids, '-inf', '(' .. args.score)
local beyond = redis.call('ZCOUNT', keys.ids, '-inf', args.score)
while first < beyond do   -- among the entries of that score, halve the range until its first is the one looked for
    local middle = math.floor((first + beyond) / 2)
    local id = redis.call('ZRANGE', keys.ids, whole(middle), whole(middle))[1]
    if follows(id, args.id) then beyond = middle else first = middle + 1 end
end
return {'entries', redis.call('ZRANGE', keys.ids, whole(first), whole(first + args.number - 1), 'WITHSCORES')}
