-- Read a page of a live session's messages, or of the transcript of one that may have ended.
-- returns {"page", has_more, {entry, ...}} | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    messages  = KEYS[3],   -- stream of the session's messages
    sends     = KEYS[4],   -- state of the messages
}
local args = {
    owner_id      = ARGV[1],   -- the user or agent that must own the session; empty: any
    first         = ARGV[2],   -- stream id, '-' or '(' and a stream id
    last          = ARGV[3],   -- stream id, '+' or '(' and a stream id
    direction     = ARGV[4],   -- 'forward' | 'backward'
    limit         = ARGV[5],   -- the most messages to return
    max_bytes     = ARGV[6],   -- the most bytes to return, except for a single message
    is_transcript = ARGV[7],   -- 'true': also after the end of the session
}

local session, reply = read_live_session(keys, server_time_ms(), args.owner_id)
if not session and args.is_transcript ~= 'true' then return reply end
if not session then   -- a swept tombstone does not contain the agent
    local agent_id = redis.call('HGET', keys.sends, 'agentId')
    if not agent_id then return {'missing'} end
    if args.owner_id ~= '' and args.owner_id ~= 'agent:' .. agent_id then return {'missing'} end
end

local count = args.limit + 1
local entries
if args.direction == 'forward' then
    entries = redis.call('XRANGE', keys.messages, args.first, args.last, 'COUNT', count)
else
    entries = redis.call('XREVRANGE', keys.messages, args.last, args.first, 'COUNT', count)
end

local page, bytes = {}, 0
for index, entry in ipairs(entries) do
    for _, value in ipairs(entry[2]) do bytes = bytes + #value end
    if index == count or (index > 1 and bytes > tonumber(args.max_bytes)) then return {'page', 1, page} end
    page[index] = entry
end
return {'page', 0, page}
