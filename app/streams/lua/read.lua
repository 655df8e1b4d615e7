-- Entries after a position, with what is needed to judge whether they are all there.
local log = KEYS[1]
local epoch, seq, limit = ARGV[1], ARGV[2], ARGV[3]

local newest = tail(log)
if not newest then
  return { '0-0' }
end
local from = '-'
if string.match(newest, '^%d+') == epoch then
  from = '(' .. epoch .. '-' .. seq
end
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
return { newest, oldest[1], oldest[2][5] and 1 or 0, redis.call('XRANGE', log, from, '+', 'COUNT', limit) }
