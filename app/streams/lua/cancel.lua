-- A stop is requested: the flag is what holds, the publication only makes it quick.
local cancel, owner = KEYS[1], KEYS[2]
local session_id, message_id, ttl_ms, channel_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

redis.call('SET', cancel, '1', 'PX', ttl_ms)
local held = redis.call('GET', owner)
if not held then
  return false
end
local node_id = string.match(held, '^(.*):%d+$')
redis.pcall('PUBLISH', channel_prefix .. node_id, session_id .. ' ' .. message_id)
return node_id
