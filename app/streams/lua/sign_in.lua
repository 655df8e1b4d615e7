-- Somebody tries to sign in to an account: counted before the password is looked at, so that a
-- hundred tries at once are a hundred. Each beyond the free ones makes the next one wait twice as
-- long. What is refused is counted nowhere: hammering lengthens nobody's wait.
local tries, account = KEYS[1], KEYS[2]
local now = tonumber(ARGV[1]) or server_time_us()
local free, longest_us, kept_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local capacity, amount = tonumber(ARGV[5]), tonumber(ARGV[6])

local known = redis.call('HMGET', tries, 'count', 'until')
local count, wait_us = tonumber(known[1]) or 0, (tonumber(known[2]) or 0) - now
local filled = math.max((tonumber(redis.call('GET', account)) or 0) - now, 0)
wait_us = math.max(wait_us, filled + amount - capacity)
if wait_us > 0 then
  return { 'REFUSED', wait_us }
end
count = count + 1
local delay = 0
if count > free then
  delay = math.min(1000000 * 2 ^ (count - free - 1), longest_us)
end
redis.call('HSET', tries, 'count', count, 'until', string.format('%.0f', now + delay))
redis.call('PEXPIRE', tries, kept_ms)
redis.call('SET', account, string.format('%.0f', now + filled + amount),
  'PX', math.ceil((filled + amount) / 1000))
return { 'ALLOWED', 0 }
