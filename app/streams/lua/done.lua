-- A job's answer is final: the group forgets it, and the stream holds open work only.
local jobs = KEYS[1]
local group, job_id = ARGV[1], ARGV[2]

redis.call('XACK', jobs, group, job_id)
redis.call('XDEL', jobs, job_id)
return 'OK'
