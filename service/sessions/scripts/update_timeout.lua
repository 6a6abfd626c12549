-- Merge a partial timeout configuration into a live session's own; its end is counted anew from the last renewal.
-- returns {"live", now_ms, session} | {"other_revision", revision} | {"in_the_past", expires_at_ms}
--       | {"expired", expires_at_ms, reason} | {"missing"} | {"lost"}
local keys = {
    session   = KEYS[1],   -- hash of the session
    tombstone = KEYS[2],   -- hash that outlives it, to say 410
    expiry    = KEYS[3],   -- its shard's ids by expiresAt
    warning   = KEYS[4],   -- its shard's ids by the start of their warning
}
local args = {
    id                        = ARGV[1],
    timeout_minutes           = ARGV[2],   -- these four: empty where nothing is to change
    auto_renew                = ARGV[3],   -- "true" | "false"
    max_duration_minutes      = ARGV[4],
    warning_threshold_minutes = ARGV[5],
    retention_ms              = ARGV[6],
    revisions                 = ARGV[7],   -- at one of which it must be, a blank around each; empty: at any
    owner_id                  = ARGV[8],   -- the user the session must belong to; empty: any
}

local now_ms = clock()
local session, ended = living(keys, now_ms, args.owner_id)
if ended then return ended end
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

local expires_at = end_of(session)
if expires_at <= now_ms then return {'in_the_past', whole(expires_at)} end

session[revision] = whole(session[revision] + 1)
place(keys, args, session,
    'timeoutMinutes', session[timeoutMinutes],
    'autoRenew', session[autoRenew],
    'maxDurationMinutes', session[maxDurationMinutes],
    'warningThresholdMinutes', session[warningThresholdMinutes],
    'revision', session[revision])
return {'live', now_ms, session}
