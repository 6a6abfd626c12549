-- Cancel the answer to a user's message, unless it was answered, and put the cancellation into the outbox.
-- returns {"cancelled", agent_id} | {"repeated"} | {"answered"} | {"unknown_message"}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    messages  = KEYS[3],   -- stream of the session's messages
    sends     = KEYS[4],   -- state of the messages
    chunks    = KEYS[5],   -- stream of recent parts of answers
    outbox    = KEYS[6],   -- the shard's messages that are not in an inbox yet
}
local args = {
    id                 = ARGV[1],
    owner_id           = ARGV[2],   -- the user or agent that must own the session; empty: any
    message_id         = ARGV[3],
    max_chunks         = ARGV[4],   -- the most parts to keep
    lifetime_ms        = ARGV[5],   -- how long they are kept
    dispatch_delay_ms  = ARGV[6],   -- when another replica dispatches the cancellation, if this one does not
    outbox_lifetime_ms = ARGV[7],
}

local now_ms = server_time_ms()
local session, reply = read_live_session(keys, now_ms, args.owner_id)
if not session then return reply end
if not find_user_message(keys, args.message_id) then return {'unknown_message'} end
local answer, cancelled_at = unpack(
    redis.call('HMGET', keys.sends, 'answer:' .. args.message_id, 'cancelled:' .. args.message_id))
if answer then return {'answered'} end
if cancelled_at then return {'repeated'} end

redis.call('HSET', keys.sends, 'cancelled:' .. args.message_id, whole(now_ms))
redis.call('XADD', keys.chunks, 'MAXLEN', '~', args.max_chunks, '*', 'messageId', args.message_id, 'cancelled', 'true')
redis.call('PEXPIRE', keys.chunks, args.lifetime_ms)
delete_wrong_type(keys.outbox, 'ZSCORE', '')
redis.call('ZADD', keys.outbox, whole(now_ms + args.dispatch_delay_ms),
    session[agentId] .. ' ' .. args.id .. ' ' .. args.message_id .. ' cancel')
redis.call('PEXPIRE', keys.outbox, args.outbox_lifetime_ms)
announce(keys, args, 'chunk')
return {'cancelled', session[agentId]}
