-- The chunks of one answer for one flush. The check of the lease and the write are one step, so a
-- worker that was paused past its lease cannot append one character.
local log, owner, active, partial, cancel = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local holder, message_id, attempt = ARGV[1], ARGV[2], ARGV[3]
local first_index, ttl_ms, max_entries, text = tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]
local count = #ARGV - 7

local held = redis.call('GET', owner)
if not held then
  return 'LOST'
end
if held ~= holder then
  return 'SUPERSEDED'
end
local known = redis.call('HMGET', active, 'message_id', 'attempt', 'index')
if known[1] ~= message_id or known[2] ~= attempt or not tail(log) then
  return 'LOST'
end
local index = tonumber(known[3])
if index == first_index + count then
  -- Sent again after a lost reply: it was applied, whatever has been requested since.
  return 'OK'
end
if index ~= first_index then
  return 'LOST'
end
if redis.call('EXISTS', cancel) == 1 then
  return 'CANCELLED'
end
local entries = {}
for number = 8, #ARGV do
  entries[#entries + 1] = 'chunk'
  entries[#entries + 1] = ARGV[number]
end
write(log, entries, max_entries, false)
redis.call('APPEND', partial, text)
if first_index == 0 then
  -- APPEND made the key where the attempt began with nothing; renew.lua keeps it from then on.
  redis.call('PEXPIRE', partial, ttl_ms)
end
redis.call('HSET', active, 'index', first_index + count)
return 'OK'
