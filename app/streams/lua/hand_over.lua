-- A job goes back to the queue's end as a new entry, which any worker takes at once. A repeat finds
-- the old entry gone and adds nothing.
local jobs = KEYS[1]
local group, job_id = ARGV[1], ARGV[2]
local session_id, message_id, enqueued_ms = ARGV[3], ARGV[4], ARGV[5]

redis.call('XACK', jobs, group, job_id)
if redis.call('XDEL', jobs, job_id) == 1 then
  redis.call('XADD', jobs, '*', 'session_id', session_id, 'message_id', message_id,
    'enqueued_ms', enqueued_ms)
end
return 'OK'
