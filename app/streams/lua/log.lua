-- Put before every other script: reading a log's tail, and appending with publication.
-- A log entry has the fields type and data; the very first entry that a session ever has carries
-- the field original besides, so that a reader knows that nothing came before it.

local function server_time_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The position of the newest entry as '<epoch>-<seq>', or nil where there is no log. A log is
-- never trimmed to nothing, so an existing one has a newest entry.
local function tail(log)
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if newest[1] then
    return newest[1][1]
  end
  return nil
end

-- Which run of the server this is. A log that was written to by another run may have lost its end
-- (AOF everysec and a power cut), so that its next positions were given out before.
local function server_run()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

-- Appends entries ({type, data} after {type, data}) and publishes them together on the channel that
-- is named as the log, so that a node need not read back what it is told of. Begins the log under a
-- new epoch where it is not there, or where its positions cannot be trusted (anew). Gives the
-- position of the last entry.
local function write(log, entries, max_entries, pristine, anew)
  local newest = tail(log)
  local epoch = newest and string.match(newest, '^%d+')
  if anew or not newest then
    epoch = string.format('%.0f',
      math.max(math.floor(server_time_us() / 1000), tonumber(epoch or '0') + 1))
    -- What an epoch before held serves nobody, and who reads from the oldest entry would be given
    -- it first. Also where nothing is held: a stream that is empty remembers its last id.
    redis.call('DEL', log)
  end
  local first, last
  local lines = {}
  for number = 1, #entries, 2 do
    local kind, data = entries[number], entries[number + 1]
    if pristine and not newest and not first then
      last = redis.call('XADD', log, epoch .. '-*', 'type', kind, 'data', data, 'original', '1')
    else
      last = redis.call('XADD', log, 'MAXLEN', '~', max_entries, epoch .. '-*',
        'type', kind, 'data', data)
    end
    first = first or last
    lines[#lines + 1] = kind .. ' ' .. data
  end
  if first then
    local head = first
    if pristine and not newest then
      head = head .. ' original'
    end
    -- A publication that is refused (no permission, say) must not undo what is in the log: nodes
    -- find the entries by their periodic look at the tail.
    redis.pcall('PUBLISH', log, head .. '\n' .. table.concat(lines, '\n'))
  end
  return last or newest or '0-0'
end

-- The last attempt that a requested stop was meant for, -1 where none is requested.
local function stopped(cancel)
  return tonumber(redis.call('GET', cancel) or '-1')
end

local function slice(from, count)
  local part = {}
  for number = from, from + count - 1 do
    part[#part + 1] = ARGV[number]
  end
  return part
end
