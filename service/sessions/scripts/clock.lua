-- What every script shares: Redis's clock, in milliseconds, and how a number is written.

local function whole(number) return string.format('%.0f', number) end

local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
