-- Put before the scripts of the job queue: what an entry of its stream says, and how a job is
-- written where it waits and where it is taken.

local function named(entry)
  local fields = {}
  for at = 1, #entry[2], 2 do
    fields[entry[2][at]] = entry[2][at + 1]
  end
  return fields
end

-- Adds an entry. It names a job as well, for workers of the version before: they know of no turns.
local function add_entry(jobs, job, turn)
  local enqueued_ms, session_id, message_id = string.match(job, '^0*(%d+) (%S+) (%S+)$')
  redis.call('XADD', jobs, '*', 'session_id', session_id, 'message_id', message_id,
    'enqueued_ms', enqueued_ms, 'turn', turn)
end

-- Jobs of one turn are sorted by this text: the one that was asked first is first.
local function job_named(fields)
  return string.format('%015.0f %s %s',
    tonumber(fields.enqueued_ms), fields.session_id, fields.message_id)
end

-- The turn that is served next; turn 0 is that of jobs that were handed over, and no user's.
local function next_turn(waiting)
  local first = redis.call('ZRANGEBYSCORE', waiting, 1, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(first[2])
end
