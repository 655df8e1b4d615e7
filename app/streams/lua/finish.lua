-- The answer's final state enters the log, and the lease goes. The chunks of this turn stay for
-- clients that resume in the middle of it; those of the turns before are superseded and trimmed.
local log, owner, active, partial, cancel = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local holder, message_id, data = ARGV[1], ARGV[2], ARGV[3]
local ttl_ms, max_entries = ARGV[4], ARGV[5]

local held = redis.call('GET', owner)
if not held then
  return 'LOST'
end
if held ~= holder then
  return 'SUPERSEDED'
end
write(log, { 'message', data }, max_entries, false)
local known = redis.call('HMGET', active, 'message_id', 'turn')
-- The database lets the next question in before this script runs: then the active answer is
-- already another one, which is left alone.
if known[1] == message_id then
  if known[2] and known[2] ~= '' then
    redis.call('XTRIM', log, 'MINID', known[2])
  end
  redis.call('DEL', active, partial)
end
redis.call('DEL', owner, cancel)
redis.call('PEXPIRE', log, ttl_ms)
return 'OK'
