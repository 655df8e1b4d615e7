-- A worker takes the session's lease, under a token larger than every one before. The token is
-- never below the server's clock in microseconds, so that it grows even where the counter was lost.
local owner, token, active, partial, reasoning = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local node_id, message_id, lease_ms, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local held = redis.call('GET', owner)
if held and string.match(held, '^(.*):%d+$') ~= node_id then
  return { 'HELD', redis.call('PTTL', owner) }
end
local last = tonumber(redis.call('GET', token) or '0')
local given = string.format('%.0f', math.max(last + 1, server_time_us()))
redis.call('SET', token, given, 'PX', ttl_ms)
redis.call('SET', owner, node_id .. ':' .. given, 'PX', lease_ms)
local known = redis.call('HMGET', active, 'message_id', 'attempt', 'index')
if known[1] ~= message_id then
  return { 'CLAIMED', given }
end
return {
  'CLAIMED', given, known[2], known[3],
  redis.call('GET', partial) or '', redis.call('GET', reasoning) or '',
}
