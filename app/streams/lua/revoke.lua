-- Revocations are added, each until its own time, those that have ended taken out, and all told.
-- KEYS: the revocations by the time at which they end; a value that every change replaces.
-- ARGV: channel, new value, time before which they count no more, then the end and text of each.
for at = 4, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'GT', ARGV[at], ARGV[at + 1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] then
  local ends = string.format('%.0f', math.ceil(tonumber(last[2])) + 60)
  redis.call('EXPIREAT', KEYS[1], ends)
  redis.call('SET', KEYS[2], ARGV[2], 'EXAT', ends)
end
for at = 4, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[1], ARGV[at] .. ' ' .. ARGV[at + 1])
end
