-- Append a message to a live session. A user's message is an activity, and is put into the outbox for the agent.
-- returns {"sent", now_ms, session, message_id, created_at_ms, is_agent, was_renewed}
--       | {"repeated", now_ms, session, message_id, created_at_ms, is_agent} | {"key_reused"} | {"other_author"}
--       | {"not_agent"} (only an agent may answer a message or add thoughts and actions) | {"unknown_message"} (that it answers)
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    expiry    = KEYS[3],   -- the shard's ids by expiresAt
    warning   = KEYS[4],   -- the shard's ids by the start of their warning
    messages  = KEYS[5],   -- stream of the session's messages
    sends     = KEYS[6],   -- state of the messages
    outbox    = KEYS[7],   -- the shard's messages that are not in an inbox yet
}
local args = {
    id                 = ARGV[1],
    retention_ms       = ARGV[2],
    owner_id           = ARGV[3],   -- the user or agent that must own the session; empty: any
    role               = ARGV[4],   -- of the author: 'user' | 'agent' | 'either' (by the author_id)
    author_id          = ARGV[5],   -- must be the session's user or agent; empty: the one of the role
    id_suffix          = ARGV[6],   -- the random part of the message's id
    key                = ARGV[7],   -- clientMessageId; empty: none
    fingerprint        = ARGV[8],   -- of the request
    content            = ARGV[9],
    attachments        = ARGV[10],   -- JSON, never parsed here, like the next two; empty: none
    metadata           = ARGV[11],
    actions            = ARGV[12],
    thought            = ARGV[13],   -- empty: none
    in_reply_to        = ARGV[14],   -- the user's message that an agent answers; empty: none
    answer_id          = ARGV[15],   -- the id of the first answer to that message
    max_messages       = ARGV[16],
    dispatch_delay_ms  = ARGV[17],   -- when another replica dispatches the message, if this one does not
    outbox_lifetime_ms = ARGV[18],
}

local now_ms = server_time_ms()
local session, reply = read_live_session(keys, now_ms, args.owner_id)
if not session then return reply end

local is_agent = args.role == 'agent' or (args.role == 'either' and args.author_id == session[agentId])
local author_id = is_agent and session[agentId] or session[userId]
if args.author_id ~= '' and args.author_id ~= author_id then return {'other_author'} end
local key_prefix = is_agent and 'agent:' or 'user:'

if args.key ~= '' then
    local earlier = redis.call('HGET', keys.sends, key_prefix .. args.key)
    if earlier then
        local message_id, created_at, fingerprint = earlier:match('^(%S+) (%d+) (%S+)$')
        if fingerprint ~= args.fingerprint then return {'key_reused'} end
        -- A write, so that the reply waits until Redis replicas have the first message, if the settings require it.
        redis.call('PEXPIREAT', keys.sends, whole(latest_possible_expiry(session) + args.retention_ms))
        return {'repeated', now_ms, session, message_id, created_at, is_agent and 1 or 0}
    end
end

local is_first_answer = false
if not is_agent and args.in_reply_to .. args.thought .. args.actions ~= '' then return {'not_agent'} end
if args.in_reply_to ~= '' then
    if not find_user_message(keys, args.in_reply_to) then return {'unknown_message'} end
    is_first_answer = redis.call('HEXISTS', keys.sends, 'answer:' .. args.in_reply_to) == 0
end

local expire_at = whole(latest_possible_expiry(session) + args.retention_ms)
assert(tonumber(expire_at) > now_ms, 'the session is unreadable')   -- else the messages would not expire
local length = redis.call('XLEN', keys.messages)
local excess = length + 1 - args.max_messages
local dropped = excess > 0 and redis.call('XRANGE', keys.messages, '-', '+', 'COUNT', excess) or {}

-- Times are unique and increasing within a session.
local message_id
local function append(created_at_ms)
    message_id = is_first_answer and args.answer_id or new_message_id(created_at_ms, args.id_suffix)
    local fields = {'id', message_id, 'authorId', author_id, 'isAgent', tostring(is_agent), 'content', args.content}
    local function add(name, value)
        if value ~= '' then
            fields[#fields + 1] = name
            fields[#fields + 1] = value
        end
    end
    add('attachments', args.attachments)
    add('metadata', args.metadata)
    add('thought', args.thought)
    add('actions', args.actions)
    add('inReplyTo', args.in_reply_to)
    add('clientMessageId', args.key)
    return redis.pcall('XADD', keys.messages, 'MAXLEN', '=', args.max_messages,
        whole(created_at_ms) .. '-0', unpack(fields))
end

local created_at_ms = now_ms
local appended = append(created_at_ms)
if appended.err and appended.err:find('equal or smaller', 1, true) then
    local last_id = redis.call('XREVRANGE', keys.messages, '+', '-', 'COUNT', 1)[1][1]
    created_at_ms = last_id:match('^%d+') + 1
    appended = append(created_at_ms)
end
if appended.err then return appended end

for _, entry in ipairs(dropped) do
    local prefix = field_of(entry, 'isAgent') == 'true' and 'agent:' or 'user:'
    local id, key = field_of(entry, 'id'), field_of(entry, 'clientMessageId')
    if id == args.in_reply_to then is_first_answer = false end
    redis.call('HDEL', keys.sends, 'answer:' .. id, 'chunks:' .. id, 'cancelled:' .. id, prefix .. (key or ''))
end
if length == 0 then redis.call('HSET', keys.sends, 'agentId', session[agentId], 'userId', session[userId]) end
if args.key ~= '' then
    redis.call('HSET', keys.sends, key_prefix .. args.key,
        message_id .. ' ' .. whole(created_at_ms) .. ' ' .. args.fingerprint)
end
if is_first_answer then
    redis.call('HSET', keys.sends, 'answer:' .. args.in_reply_to, message_id .. ' ' .. whole(created_at_ms))
    redis.call('HDEL', keys.sends, 'chunks:' .. args.in_reply_to)
end
redis.call('PEXPIREAT', keys.messages, expire_at)
redis.call('PEXPIREAT', keys.sends, expire_at)

local was_renewed = 0
if not is_agent then
    delete_wrong_type(keys.outbox, 'ZSCORE', '')
    redis.call('ZADD', keys.outbox, whole(now_ms + args.dispatch_delay_ms),
        session[agentId] .. ' ' .. args.id .. ' ' .. message_id)
    redis.call('PEXPIRE', keys.outbox, args.outbox_lifetime_ms)
    if session[autoRenew] == 'true' and not is_at_maximum(session) then
        renew_session(keys, args, session, now_ms)
        was_renewed = 1
    else
        session[lastActivity] = whole(now_ms)
        redis.call('HSET', keys.session, 'lastActivity', session[lastActivity])
    end
end
announce(keys, args, 'message')
return {'sent', now_ms, session, message_id, whole(created_at_ms), is_agent and 1 or 0, was_renewed}
