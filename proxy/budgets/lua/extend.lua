#!lua flags=allow-oom
--[[
  Extend: renew the leases of reservations under way, and note how much output each has seen.

  Guarantee: a lease is only ever renewed for a reservation that is still held, and what was
  observed never shrinks. Those that are not held any more are named in the reply.

  KEYS[1]   shard           hash    epoch, seq, clock_us
  KEYS[2]   leases          zset    ref -> deadline in us; holds the same references as `held`
  KEYS[3]   observed        hash    ref -> output tokens observed
  ARGV[1]   epoch           the shard's epoch as the caller knows it
  ARGV[2]   seq_known       the highest seq that the caller has seen of the shard
  ARGV[3]   lease_us        how long from now
  ARGV[4..] observations    of each reservation: its reference, then the output tokens observed
  Returns   {"extended", lost_ref, ...} | {"closed"}
]]
local shard = KEYS[1]
local leases = KEYS[2]
local observed = KEYS[3]
local epoch = ARGV[1]
local seq_known = ARGV[2]
local lease_us = ARGV[3]

local call, find = redis.call, string.find

local function integer(text, name)
  local number = (text == '0' or find(text, '^[1-9]%d*$')) and tonumber(text)
  if not number or number >= 9007199254740992 then
    error({err = 'BADARG ' .. name .. ' must be an integer from 0 to 2^53 - 1'})
  end
  return number
end

seq_known, lease_us = integer(seq_known, 'seq_known'), integer(lease_us, 'lease_us')
if #ARGV % 2 == 0 then
  error({err = 'BADARG each reference needs its output tokens observed'})
end
for i = 5, #ARGV, 2 do
  integer(ARGV[i], 'observed')
end

-- Read all.
local time = call('TIME')
local state = call('HMGET', shard, 'epoch', 'seq', 'clock_us')
local now = math.max(time[1] * 1000000 + time[2], tonumber(state[3] or 0))

-- Decide.
if state[1] ~= epoch or tonumber(state[2] or 0) < seq_known then
  return {'closed'}
end
local renewed, lost = {}, {'extended'}
for i = 4, #ARGV, 2 do
  if call('ZSCORE', leases, ARGV[i]) then
    renewed[#renewed + 1] = i
  else
    lost[#lost + 1] = ARGV[i]
  end
end

-- Write all.
for _, i in ipairs(renewed) do
  call('ZADD', leases, now + lease_us, ARGV[i])
  if tonumber(ARGV[i + 1]) > tonumber(call('HGET', observed, ARGV[i]) or 0) then
    call('HSET', observed, ARGV[i], ARGV[i + 1])
  end
end
if #renewed > 0 then
  call('HSET', shard, 'clock_us', now)
end
return lost
