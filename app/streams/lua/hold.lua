-- One of several processes does something for all of them, for as long as it keeps holding this.
local key = KEYS[1]
local node_id, ttl_ms = ARGV[1], ARGV[2]

local held = redis.call('GET', key)
if held and held ~= node_id then
  return 0
end
redis.call('SET', key, node_id, 'PX', ttl_ms)
return 1
