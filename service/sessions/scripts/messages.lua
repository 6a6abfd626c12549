-- Rules of messages, for scripts that take a session's messages.

-- The id of a user's message is a UUIDv7: its first 48 bits are the time that is also the message's id in the stream.
local function created_at_of(message_id) return tonumber(message_id:sub(1, 8) .. message_id:sub(10, 13), 16) end

local function new_message_id(created_at_ms, suffix)
    local digits = string.format('%012x', created_at_ms)
    return digits:sub(1, 8) .. '-' .. digits:sub(9) .. '-' .. suffix
end

local function field_of(entry, name)
    for index = 1, #entry[2], 2 do
        if entry[2][index] == name then return entry[2][index + 1] end
    end
    return nil
end

-- Find a message of the user by its id. Return its stream entry, or nil.
local function find_user_message(keys, message_id)
    local entry_id = whole(created_at_of(message_id)) .. '-0'
    local entry = redis.call('XRANGE', keys.messages, entry_id, entry_id)[1]
    if entry and field_of(entry, 'id') == message_id and field_of(entry, 'isAgent') == 'false' then return entry end
    return nil
end
