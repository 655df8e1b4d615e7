-- An answer is awaited: its question enters the log, text and reasoning of the turn before go. What
-- an answer has already that is to be gone on with takes their place.
-- Gives the position, and the answer before this one where its final state was never told.
local log, owner, active, partial, reasoning, cancel =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local message_id, attempt, pristine = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local ttl_ms, max_entries, kept, kept_reasoning = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local count = tonumber(ARGV[8])

local known = redis.call('HMGET', active, 'message_id', 'attempt', 'run')
if known[1] == message_id and tonumber(known[2]) >= attempt then
  -- Sent again after a lost reply, or a worker was faster than this node.
  return { tail(log) or '0-0', '' }
end
local untold = ''
if known[1] and known[1] ~= message_id then
  untold = known[1]
end
local before = tail(log)
local run = server_run()
-- The server was restarted since the turn before: see start.lua.
local anew = count > 0 and before and known[3] and known[3] ~= run
local position = write(log, slice(9, count * 2), max_entries, pristine, anew)
redis.call('DEL', active, partial, reasoning)
if stopped(cancel) < attempt then
  redis.call('DEL', cancel)
end
if kept ~= '' then
  redis.call('SET', partial, kept, 'PX', ttl_ms)
end
if kept_reasoning ~= '' then
  redis.call('SET', reasoning, kept_reasoning, 'PX', ttl_ms)
end
local turn = count > 0 and position or before
if count == 0 and before and known[3] then
  -- Nothing was appended, so that it is still the attempt's to begin anew.
  run = known[3]
end
redis.call('HSET', active, 'message_id', message_id, 'attempt', attempt, 'index', 0,
  'turn', turn or '', 'run', run)
redis.call('PEXPIRE', active, ttl_ms)
redis.call('PEXPIRE', log, ttl_ms)
return { position, untold }
