-- The holder lets the lease go and leaves the text for another to continue from.
local owner = KEYS[1]
local holder = ARGV[1]

if redis.call('GET', owner) == holder then
  redis.call('DEL', owner)
end
return 'OK'
