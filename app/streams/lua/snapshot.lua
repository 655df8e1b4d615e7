-- Where the log stands and the text so far, read together.
local log, active, partial = KEYS[1], KEYS[2], KEYS[3]

local known = redis.call('HMGET', active, 'message_id', 'attempt', 'index')
return {
  tail(log) or '0-0',
  known[1], known[2], known[3],
  known[1] and (redis.call('GET', partial) or ''),
}
