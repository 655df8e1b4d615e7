-- The lease and everything that is written under it live on. A requested stop is told here too,
-- for a holder whose model is silent and who therefore does not append.
local log, owner, active, partial, token, cancel =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local holder, lease_ms, ttl_ms = ARGV[1], ARGV[2], ARGV[3]

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
redis.call('PEXPIRE', token, ttl_ms)
if redis.call('EXISTS', cancel) == 1 then
  return 'CANCELLED'
end
return 'OK'
