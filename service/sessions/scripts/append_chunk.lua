-- Append a part of the answer to a user's message, for listeners. Parts are kept for a short time only.
-- returns {"appended", is_cancelled} | {"repeated", is_cancelled} | {"gap", next_index} | {"answered"}
--       | {"unknown_message"} | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    messages  = KEYS[3],   -- stream of the session's messages
    sends     = KEYS[4],   -- state of the messages
    chunks    = KEYS[5],   -- stream of recent parts of answers
}
local args = {
    id          = ARGV[1],
    owner_id    = ARGV[2],   -- the agent that must own the session; empty: any
    message_id  = ARGV[3],   -- the message that is answered
    index       = ARGV[4],   -- from 0
    chunk       = ARGV[5],
    max_chunks  = ARGV[6],   -- the most parts to keep
    lifetime_ms = ARGV[7],   -- how long they are kept
}

local session, reply = read_live_session(keys, server_time_ms(), args.owner_id)
if not session then return reply end
if not find_user_message(keys, args.message_id) then return {'unknown_message'} end

local answer, next_index, cancelled_at = unpack(redis.call('HMGET', keys.sends,
    'answer:' .. args.message_id, 'chunks:' .. args.message_id, 'cancelled:' .. args.message_id))
local is_cancelled = cancelled_at and 1 or 0
if answer then return {'answered'} end
next_index = tonumber(next_index or 0)
if tonumber(args.index) < next_index then return {'repeated', is_cancelled} end
if tonumber(args.index) > next_index then return {'gap', next_index} end

redis.call('XADD', keys.chunks, 'MAXLEN', '~', args.max_chunks, '*',
    'messageId', args.message_id, 'index', args.index, 'chunk', args.chunk)
redis.call('PEXPIRE', keys.chunks, args.lifetime_ms)
redis.call('HSET', keys.sends, 'chunks:' .. args.message_id, whole(next_index + 1))
announce(keys, args, 'chunk')
return {'appended', is_cancelled}
