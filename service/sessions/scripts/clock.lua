-- The server's clock and the format of whole numbers, for every script.

local function whole(number) return string.format('%.0f', number) end

local function server_time_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
