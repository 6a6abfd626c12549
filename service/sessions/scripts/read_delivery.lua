-- Read a message for its agent, also after the end of the session.
-- returns {"live", now_ms, session, entry} | {"ended", entry} | {"done"} (the message was answered or cancelled, or it is gone)
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    messages  = KEYS[3],   -- stream of the session's messages
    sends     = KEYS[4],   -- state of the messages
}
local args = {
    message_id = ARGV[1],
    is_cancel  = ARGV[2],   -- 'true': the delivery is the cancellation of the message
}

local entry = find_user_message(keys, args.message_id)
if not entry or redis.call('HEXISTS', keys.sends, 'answer:' .. args.message_id) == 1 then return {'done'} end
if args.is_cancel ~= 'true' and redis.call('HEXISTS', keys.sends, 'cancelled:' .. args.message_id) == 1 then
    return {'done'}
end
local now_ms = server_time_ms()
local session = read_live_session(keys, now_ms)
if not session then return {'ended', entry} end
return {'live', now_ms, session, entry}
