-- An attempt begins: text and reasoning become what it keeps of the attempt before.
local log, owner, active, partial, reasoning = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local holder, message_id, attempt = ARGV[1], ARGV[2], ARGV[3]
local kept, kept_reasoning, ttl_ms, max_entries = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local count_if_unknown, count = tonumber(ARGV[8]), tonumber(ARGV[9])

local held = redis.call('GET', owner)
if not held then
  return 'LOST'
end
if held ~= holder then
  return 'SUPERSEDED'
end
local known = redis.call('HMGET', active, 'message_id', 'attempt', 'turn', 'run')
if known[1] == message_id and known[2] == attempt then
  return 'OK'
end
local from, number = 10, count_if_unknown + count
if known[1] == message_id and tail(log) then
  from, number = 10 + count_if_unknown * 2, count
end
local before = tail(log)
local run = server_run()
-- The server was restarted since the log was written to and may have lost its end: clients that
-- have seen it must not take new entries for the ones that they have.
local anew = known[4] and known[4] ~= run
write(log, slice(from, number * 2), max_entries, false, anew)
local turn = known[1] == message_id and known[3] or before or ''
redis.call('DEL', active)
redis.call('HSET', active, 'message_id', message_id, 'attempt', attempt, 'index', 0, 'turn', turn,
  'run', run)
redis.call('PEXPIRE', active, ttl_ms)
redis.call('DEL', partial, reasoning)
if kept ~= '' then
  redis.call('SET', partial, kept, 'PX', ttl_ms)
end
if kept_reasoning ~= '' then
  redis.call('SET', reasoning, kept_reasoning, 'PX', ttl_ms)
end
redis.call('PEXPIRE', log, ttl_ms)
return 'OK'
