#!lua flags=allow-oom
--[[
  Take a keeper's lease: become, or stay, the one keeper that does a piece of work.

  Guarantee: while it is held, nobody else takes it; whoever holds it and comes again in time keeps it.

  KEYS[1]   lease           string  who holds it; goes by itself when nobody renews it
  ARGV[1]   keeper          who asks
  ARGV[2]   milliseconds    for how long from now on
  Returns   who holds it now
]]
local lease = KEYS[1]
local keeper = ARGV[1]
local milliseconds = ARGV[2]

if keeper == '' or not string.find(milliseconds, '^[1-9]%d*$') then
  error({err = 'BADARG a lease is taken by a named keeper for some milliseconds'})
end

-- Read all.
local holder = redis.call('GET', lease)

-- Decide.
if holder and holder ~= keeper then
  return holder
end

-- Write all.
redis.call('SET', lease, keeper, 'PX', milliseconds)
return keeper
