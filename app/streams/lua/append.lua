-- What one answer adds in one flush, text and reasoning. The check of the lease and the write are
-- one step, so a worker that was paused past its lease cannot append one character.
local log, owner, active, partial, reasoning, cancel =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local holder, message_id, attempt = ARGV[1], ARGV[2], ARGV[3]
local first_index, ttl_ms, max_entries = tonumber(ARGV[4]), ARGV[5], ARGV[6]
local text, thoughts = ARGV[7], ARGV[8]
local count = (#ARGV - 8) / 2

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
if stopped(cancel) >= tonumber(attempt) then
  return 'CANCELLED'
end
local function add(key, piece)
  if piece ~= '' and redis.call('APPEND', key, piece) == #piece then
    -- APPEND made the key; renew.lua keeps it from then on.
    redis.call('PEXPIRE', key, ttl_ms)
  end
end
write(log, slice(9, count * 2), max_entries, false)
add(partial, text)
add(reasoning, thoughts)
redis.call('HSET', active, 'index', first_index + count)
return 'OK'
