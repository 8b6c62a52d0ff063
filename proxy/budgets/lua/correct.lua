#!lua flags=allow-oom
--[[
  Correct: put a counter's `used` right, where it was found to differ from what the ledger has recorded.

  Guarantee: nothing is changed unless shard and counter still stand exactly as they were seen: a
  settle, an expiry or a rebuild since then makes the difference that was found worthless.

  KEYS[1]   shard           hash    epoch, seq
  KEYS[2]   counter         hash    used, held
  ARGV[1]   epoch           the shard's, as seen
  ARGV[2]   seq             the shard's, as seen
  ARGV[3]   seen            the counter's `used`, as seen; 0 for a counter that is not there
  ARGV[4]   right           what it should be
  ARGV[5]   expires_ms      when a counter that is not there is to go; 0: never
  Returns   1: corrected | 0: something has moved
]]
local shard = KEYS[1]
local counter = KEYS[2]
local epoch = ARGV[1]
local seq = ARGV[2]
local seen = ARGV[3]
local right = ARGV[4]
local expires_ms = ARGV[5]

for i = 2, 5 do
  if not string.find(ARGV[i], '^-?%d+$') then
    error({err = 'BADARG seq, seen, right and expires_ms must be integers'})
  end
end

-- Read all.
local state = redis.call('HMGET', shard, 'epoch', 'seq')
local new = redis.call('EXISTS', counter) == 0
local used = redis.call('HGET', counter, 'used')

-- Decide.
if state[1] ~= epoch or (state[2] or '0') ~= seq or (used or '0') ~= seen then
  return 0
end

-- Write all.
redis.call('HSET', counter, 'used', right)
if new then
  redis.call('HSET', counter, 'held', 0)
  if expires_ms ~= '0' then
    redis.call('PEXPIREAT', counter, expires_ms)
  end
end
return 1
