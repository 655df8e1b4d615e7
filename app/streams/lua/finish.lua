-- The answer's final state enters the log, and the lease goes. The chunks of this turn stay for
-- clients that resume in the middle of it; those of the turns before are superseded and trimmed.
local log, owner, active, partial, reasoning, cancel =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local holder, message_id, attempt, data = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local ttl_ms, max_entries = ARGV[5], ARGV[6]

local held = redis.call('GET', owner)
if not held then
  return 'LOST'
end
if held ~= holder then
  return 'SUPERSEDED'
end
local known = redis.call('HMGET', active, 'message_id', 'attempt', 'turn', 'run')
local run = server_run()
-- The server was restarted since the attempt began: see start.lua.
local anew = known[4] and known[4] ~= run
write(log, { 'message', data }, max_entries, false, anew)
if anew then
  redis.call('HSET', active, 'run', run)
end
-- The database lets the next question in, or the same one again, before this script runs: then
-- what is active is already newer than this final state, and is left alone.
if known[1] == message_id and tonumber(known[2]) <= attempt then
  if known[3] and known[3] ~= '' then
    redis.call('XTRIM', log, 'MINID', known[3])
  end
  -- The run stays: the next turn must know whether the server was restarted in between.
  redis.call('HDEL', active, 'message_id', 'attempt', 'index', 'turn')
  redis.call('PEXPIRE', active, ttl_ms)
  redis.call('DEL', partial, reasoning)
end
if stopped(cancel) <= attempt then
  redis.call('DEL', cancel)
end
redis.call('DEL', owner)
redis.call('PEXPIRE', log, ttl_ms)
return 'OK'
