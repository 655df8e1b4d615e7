-- Where the log stands, the text so far and the reasoning, read together.
local log, active, partial, reasoning = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local known = redis.call('HMGET', active, 'message_id', 'attempt', 'index')
return {
  tail(log) or '0-0',
  known[1], known[2], known[3],
  known[1] and (redis.call('GET', partial) or ''),
  known[1] and (redis.call('GET', reasoning) or ''),
}
