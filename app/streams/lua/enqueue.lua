-- A job is put into its user's line, and the stream gets an entry more: a place that a worker reads
-- and is then given the job whose turn it is (bind.lua).
-- A user's jobs have turns one after the other. Who comes anew begins at the turn that is served
-- next: beside the first of everybody who waits, and not behind all that they have asked. Jobs of
-- one turn go by the time at which they were asked, so that nobody overtakes who is next.
local jobs, waiting, turns = KEYS[1], KEYS[2], KEYS[3]
local user_id, session_id, message_id, enqueued_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local job = job_named({
  session_id = session_id, message_id = message_id, enqueued_ms = enqueued_ms,
})
local last = tonumber(redis.call('ZSCORE', turns, user_id)) or 0
local turn = math.max(next_turn(waiting) or 1, last + 1)
if redis.call('ZADD', waiting, 'NX', turn, job) == 1 then
  redis.call('ZADD', turns, turn, user_id)
  add_entry(jobs, job, turn)
end
return 'OK'
