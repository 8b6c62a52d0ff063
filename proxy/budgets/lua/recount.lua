#!lua flags=allow-oom
--[[
  Recount: put a counter's `held` right, where it was found to differ from what its reservations hold.

  Guarantee: reservations are summed and the counter written in one moment, and only if the difference
  is still the one that was found. What is reserved and ended meanwhile moves both sides alike. A
  shard that is closed, or was rebuilt since, is left alone.

  KEYS[1]   shard           hash    epoch
  KEYS[2]   held            hash    ref -> admitted_us|a|b|amount,...|counter key TAB ...\n record
  KEYS[3]   counter         hash    used, held
  ARGV[1]   epoch           the shard's, as seen
  ARGV[2]   difference      held - sum of its reservations, as found
  Returns   1: corrected | 0: something has moved
]]
local shard = KEYS[1]
local held = KEYS[2]
local counter = KEYS[3]
local epoch = ARGV[1]
local difference = ARGV[2]

local call, match, gmatch = redis.call, string.match, string.gmatch

if not string.find(difference, '^-?[1-9]%d*$') then
  error({err = 'BADARG difference must be an integer other than 0'})
end

-- Read all.
local sum = 0
for _, hold in ipairs(call('HVALS', held)) do
  local amounts, names = match(hold, '^%d+|%d+|%d+|([%d,]*)|([^\n]*)')
  local amount_of = gmatch(amounts, '%d+')
  for name in gmatch(names, '[^\t]+') do
    local amount = amount_of()
    if name == counter then
      sum = sum + tonumber(amount)
    end
  end
end
local now = tonumber(call('HGET', counter, 'held') or 0)

-- Decide.
if call('HGET', shard, 'epoch') ~= epoch or now - sum ~= tonumber(difference) then
  return 0
end

-- Write all.
call('HSET', counter, 'held', sum)
return 1
