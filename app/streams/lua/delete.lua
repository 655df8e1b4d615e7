-- The session is gone: whoever follows it is told, and nothing of it is kept. The token stays, so
-- that a lease of a later session under the same id is larger than every one of this.
local log, owner, active, partial, reasoning = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local cache = KEYS[6]
local data, max_entries = ARGV[1], ARGV[2]

write(log, { 'session', data }, max_entries, false)
redis.call('DEL', log, owner, active, partial, reasoning, cache)
return 'OK'
