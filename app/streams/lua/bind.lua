-- Each entry that a worker has read, or taken over, gets its job: the one that it was given before,
-- to a worker that is gone or whose reply was lost, else the one whose turn it is.
local jobs, waiting, taken, turns = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group = ARGV[1]

local function job_of(entry)
  local given = redis.call('HGET', taken, entry[1])
  if given then
    return given
  end
  local fields = named(entry)
  if not fields.turn then
    -- Put there by the version before: it is the job itself.
    return job_named(fields)
  end
  return redis.call('ZPOPMIN', waiting)[1]
end

local bound = {}
for at = 2, #ARGV do
  local job_id = ARGV[at]
  local entry = redis.call('XRANGE', jobs, job_id, job_id)[1]
  local job = entry and job_of(entry)
  if job then
    redis.call('HSET', taken, job_id, job)
    bound[#bound + 1] = job_id
    bound[#bound + 1] = job
  else
    -- Deleted by hand, or one too many: a worker of the version before did a job out of turn.
    redis.call('XACK', jobs, group, job_id)
    redis.call('XDEL', jobs, job_id)
    redis.call('HDEL', taken, job_id)
  end
end
-- A user whose last turn is over begins anew beside the others, and need not be known.
local turn = next_turn(waiting)
if turn then
  redis.call('ZREMRANGEBYSCORE', turns, '-inf', '(' .. turn)
else
  redis.call('DEL', turns)
end
return bound
