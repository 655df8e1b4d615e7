-- Things are counted in several buckets of one subject: in all of them, or in none.
-- A bucket's value is the time in microseconds at which it is empty again; see app/domain/rates.py.
-- Its key expires at that time, so that no clock that was set back can keep anybody out for long.
local now = tonumber(ARGV[1]) or server_time_us()

local filled = {}
local refused = false
for number, bucket in ipairs(KEYS) do
  local capacity, amount = tonumber(ARGV[number * 2]), tonumber(ARGV[number * 2 + 1])
  filled[number] = math.max((tonumber(redis.call('GET', bucket)) or 0) - now, 0)
  refused = refused or (amount > 0 and filled[number] + amount > capacity)
end
if refused then
  return { 'REFUSED', unpack(filled) }
end
for number, bucket in ipairs(KEYS) do
  filled[number] = math.max(filled[number] + tonumber(ARGV[number * 2 + 1]), 0)
  if filled[number] > 0 then
    redis.call('SET', bucket, string.format('%.0f', now + filled[number]),
      'PX', math.ceil(filled[number] / 1000))
  else
    redis.call('DEL', bucket)
  end
end
return { 'ALLOWED', unpack(filled) }
