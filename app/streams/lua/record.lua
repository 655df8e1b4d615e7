-- Something that needs no lease happened in the session (its title changed, say).
local log = KEYS[1]
local pristine, ttl_ms, max_entries, count = ARGV[1] == '1', ARGV[2], ARGV[3], tonumber(ARGV[4])

local position = write(log, slice(5, count * 2), max_entries, pristine)
redis.call('PEXPIRE', log, ttl_ms)
return position
