#!lua flags=allow-oom
--[[
  Give up a keeper's lease: let the next one have it at once.

  Guarantee: a lease that somebody else holds by now stays theirs.

  KEYS[1]   lease           string  who holds it
  ARGV[1]   keeper          who asks
  Returns   1 if it was theirs, else 0
]]
local lease = KEYS[1]
local keeper = ARGV[1]

-- Read and decide.
if redis.call('GET', lease) ~= keeper then
  return 0
end

-- Write all.
return redis.call('DEL', lease)
