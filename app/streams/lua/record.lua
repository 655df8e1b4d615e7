-- Something that needs no lease happened in the session (its title changed, say).
local log, active = KEYS[1], KEYS[2]
local pristine, ttl_ms, max_entries, count = ARGV[1] == '1', ARGV[2], ARGV[3], tonumber(ARGV[4])

local before, known, run = tail(log), redis.call('HGET', active, 'run'), server_run()
-- The server was restarted since the log was written to: see start.lua.
local anew = before and known and known ~= run
local position = write(log, slice(5, count * 2), max_entries, pristine, anew)
if anew or not before then
  redis.call('HSET', active, 'run', run)
end
redis.call('PEXPIRE', active, ttl_ms)
redis.call('PEXPIRE', log, ttl_ms)
return position
