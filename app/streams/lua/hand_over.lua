-- A job goes back, before all that wait: it had its turn. Any worker takes it at once. Of several,
-- the one that was asked first goes first. A repeat finds the old entry gone and adds nothing.
local jobs, waiting, taken = KEYS[1], KEYS[2], KEYS[3]
local group, job_id = ARGV[1], ARGV[2]
local session_id, message_id, enqueued_ms = ARGV[3], ARGV[4], ARGV[5]

local job = job_named({
  session_id = session_id, message_id = message_id, enqueued_ms = enqueued_ms,
})
redis.call('XACK', jobs, group, job_id)
redis.call('HDEL', taken, job_id)
if redis.call('XDEL', jobs, job_id) == 1 and redis.call('ZADD', waiting, 'NX', 0, job) == 1 then
  add_entry(jobs, job, 0)
end
return 'OK'
