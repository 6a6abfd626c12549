-- Merge timeouts into a live session's own, and compute its expiry from its last renewal.
-- returns {"live", now_ms, session} | {"other_revision", revision} | {"in_the_past", expires_at_ms}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- session hash
    tombstone = KEYS[2],   -- outlives the session, for 410
    expiry    = KEYS[3],   -- the shard's ids by expiresAt
    warning   = KEYS[4],   -- the shard's ids by the start of their warning
    messages  = KEYS[5],   -- stream of the session's messages
    sends     = KEYS[6],   -- state of the messages
}
local args = {
    id                        = ARGV[1],
    timeout_minutes           = ARGV[2],   -- empty: unchanged, like the next three
    auto_renew                = ARGV[3],   -- 'true' | 'false'
    max_duration_minutes      = ARGV[4],
    warning_threshold_minutes = ARGV[5],
    retention_ms              = ARGV[6],
    revisions                 = ARGV[7],   -- the session must have one of them, a space around each; empty: any
    owner_id                  = ARGV[8],   -- the user that must own the session; empty: any
}

local now_ms = server_time_ms()
local session, reply = read_live_session(keys, now_ms, args.owner_id)
if not session then return reply end
if args.revisions ~= '' and not args.revisions:find(' ' .. session[revision] .. ' ', 1, true) then
    return {'other_revision', session[revision]}
end

local function merge(field, value)
    if value ~= '' then session[field] = value end
end
merge(timeoutMinutes, args.timeout_minutes)
merge(autoRenew, args.auto_renew)
merge(maxDurationMinutes, args.max_duration_minutes)
merge(warningThresholdMinutes, args.warning_threshold_minutes)
if args.timeout_minutes ~= '' and args.max_duration_minutes == ''
    and tonumber(session[maxDurationMinutes]) < tonumber(args.timeout_minutes) then
    session[maxDurationMinutes] = args.timeout_minutes
end

local expires_at_ms = compute_expiry(session)
if expires_at_ms <= now_ms then return {'in_the_past', whole(expires_at_ms)} end

session[revision] = whole(session[revision] + 1)
save_expiry(keys, args, session,
    'timeoutMinutes', session[timeoutMinutes],
    'autoRenew', session[autoRenew],
    'maxDurationMinutes', session[maxDurationMinutes],
    'warningThresholdMinutes', session[warningThresholdMinutes],
    'revision', session[revision])
local messages_expire_at = whole(latest_possible_expiry(session) + args.retention_ms)
redis.call('PEXPIREAT', keys.messages, messages_expire_at)
redis.call('PEXPIREAT', keys.sends, messages_expire_at)
announce(keys, args, 'session')
return {'live', now_ms, session}
