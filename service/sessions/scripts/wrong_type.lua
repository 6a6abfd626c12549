-- Delete a key of another type, which only a manual change leaves. `read` is a command for the right type.
local function delete_wrong_type(key, read, ...)
    local reply = redis.pcall(read, key, ...)
    if type(reply) == 'table' and reply.err and reply.err:find('WRONGTYPE', 1, true) then redis.call('DEL', key) end
end
