-- A job's answer is final: the group forgets it, and the queue holds open work only.
local jobs, taken = KEYS[1], KEYS[2]
local group, job_id = ARGV[1], ARGV[2]

redis.call('XACK', jobs, group, job_id)
redis.call('XDEL', jobs, job_id)
redis.call('HDEL', taken, job_id)
return 'OK'
