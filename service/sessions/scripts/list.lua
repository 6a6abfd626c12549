-- List the entries of an index behind a position, ordered by score and then by the bytes of the id.
-- returns {"entries", {id, score, ...}}; none of an index of a wrong type
local keys = {
    ids = KEYS[1],   -- the index: ids by a time
}
local args = {
    score = ARGV[1],   -- the position, where there need not be an entry any more
    id    = ARGV[2],
    limit = ARGV[3],   -- the most entries to return
}

-- Lua compares strings by the server's locale, but Redis orders ids by their bytes.
local function is_behind(id, other)
    for position = 1, math.max(#id, #other) do
        local a, b = id:byte(position) or -1, other:byte(position) or -1
        if a ~= b then return a > b end
    end
    return false
end

-- Binary search for the first entry behind the position, among the entries with the same score.
local first = redis.pcall('ZCOUNT', keys.ids, '-inf', '(' .. args.score)
if type(first) == 'table' then return {'entries', {}} end
local last = redis.call('ZCOUNT', keys.ids, '-inf', args.score)
while first < last do
    local middle = math.floor((first + last) / 2)
    local id = redis.call('ZRANGE', keys.ids, whole(middle), whole(middle))[1]
    if is_behind(id, args.id) then last = middle else first = middle + 1 end
end
return {'entries', redis.call('ZRANGE', keys.ids, whole(first), whole(first + args.limit - 1), 'WITHSCORES')}
