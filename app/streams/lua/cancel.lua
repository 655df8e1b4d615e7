-- A stop is requested: the flag is what holds, the publication only makes it quick. It says which
-- attempt it was meant for, so that one that comes late cannot stop an answer asked for again since.
local cancel, owner = KEYS[1], KEYS[2]
local session_id, message_id, attempt = ARGV[1], ARGV[2], ARGV[3]
local ttl_ms, channel_prefix = ARGV[4], ARGV[5]

local before = tonumber(redis.call('GET', cancel) or '-1')
redis.call('SET', cancel, tonumber(attempt) > before and attempt or before, 'PX', ttl_ms)
local held = redis.call('GET', owner)
if not held then
  return false
end
local node_id = string.match(held, '^(.*):%d+$')
redis.pcall('PUBLISH', channel_prefix .. node_id, session_id .. ' ' .. message_id .. ' ' .. attempt)
return node_id
