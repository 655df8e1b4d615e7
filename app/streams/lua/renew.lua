-- The lease and everything that is written under it live on. A requested stop is told here too,
-- for a holder whose model is silent and who therefore does not append.
local log, owner, active, partial, reasoning = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, cancel = KEYS[6], KEYS[7]
local holder, attempt, lease_ms, ttl_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

local held = redis.call('GET', owner)
if not held then
  return 'LOST'
end
if held ~= holder then
  return 'SUPERSEDED'
end
redis.call('PEXPIRE', owner, lease_ms)
redis.call('PEXPIRE', log, ttl_ms)
redis.call('PEXPIRE', active, ttl_ms)
redis.call('PEXPIRE', partial, ttl_ms)
redis.call('PEXPIRE', reasoning, ttl_ms)
redis.call('PEXPIRE', token, ttl_ms)
if stopped(cancel) >= attempt then
  return 'CANCELLED'
end
return 'OK'
