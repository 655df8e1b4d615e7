-- An attempt begins: the text becomes what it keeps of the attempt before.
local log, owner, active, partial = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local holder, message_id, attempt, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ttl_ms, max_entries = ARGV[5], ARGV[6]
local count_if_unknown, count = tonumber(ARGV[7]), tonumber(ARGV[8])

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
local from, number = 9, count_if_unknown + count
if known[1] == message_id and tail(log) then
  from, number = 9 + count_if_unknown * 2, count
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
if kept == '' then
  redis.call('DEL', partial)
else
  redis.call('SET', partial, kept, 'PX', ttl_ms)
end
redis.call('PEXPIRE', log, ttl_ms)
return 'OK'
