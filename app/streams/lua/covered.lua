-- All jobs, waiting or taken. What is amiss is put right first: as many entries as there are jobs,
-- and none taken for an entry that is gone. It comes of workers of the version before, which do the
-- job that an entry names, and of people who tidy the stream by hand.
local jobs, waiting, taken = KEYS[1], KEYS[2], KEYS[3]

local covered, there, free = {}, {}, 0
local given = {}
local all = redis.call('HGETALL', taken)
for at = 1, #all, 2 do
  given[all[at]] = all[at + 1]
end
for _, entry in ipairs(redis.call('XRANGE', jobs, '-', '+')) do
  local job_id, fields = entry[1], named(entry)
  there[job_id] = true
  if given[job_id] then
    covered[#covered + 1] = given[job_id]
  elseif fields.turn then
    free = free + 1
  else
    covered[#covered + 1] = job_named(fields)
  end
end
for job_id in pairs(given) do
  if not there[job_id] then
    redis.call('HDEL', taken, job_id)
  end
end
for number, job in ipairs(redis.call('ZRANGE', waiting, 0, -1)) do
  covered[#covered + 1] = job
  if number > free then
    add_entry(jobs, job, 0)
  end
end
return covered
