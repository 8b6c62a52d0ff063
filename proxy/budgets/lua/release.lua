#!lua flags=allow-oom
--[[
  Release: give back everything that was held for an attempt, and write its terminal event.

  Guarantee: holds and event change together and once for each reference, also when memory is
  short. A reference that Redis does not know gets a tombstone, which bars a reserve that is
  still under way; no event is written for it, because nothing was ever held.

  KEYS[1]   shard           hash    epoch, seq, clock_us, released
  KEYS[2]   rates           hash    tokens: theoretical arrival time in us
  KEYS[3]   holding         set     the customer's held references
  KEYS[4]   held            hash    ref -> admitted_us|a|b|amount,...|counter key TAB ...\n record
  KEYS[5]   leases          zset    ref -> deadline in us
  KEYS[6]   observed        hash    ref -> output tokens observed
  KEYS[7]   done            string  state|input,output,cost_pico|charged,...|disputed usage;...
  KEYS[8]   events          stream  event, kind, seq, charged, late, disputed, prior
  KEYS[9..] counters        hash    used, held; all that it may hold on, in any order
  ARGV[1]   epoch           the shard's epoch as the caller knows it
  ARGV[2]   seq_known       the highest seq that the caller has seen of the shard
  ARGV[3]   ref             {request_id}:{attempt}
  ARGV[4]   event           the usage event as JSON
  ARGV[5..] charges         of each counter: its part of the event's `charged` as JSON without the
                            amount (which is 0) and the closing brace; - for none
  Returns   {"released" | "duplicate" | "tombstone" | "closed", seq, now_us}
]]
local shard = KEYS[1]
local rates = KEYS[2]
local holding = KEYS[3]
local held = KEYS[4]
local leases = KEYS[5]
local observed = KEYS[6]
local done = KEYS[7]
local events = KEYS[8]
local epoch = ARGV[1]
local seq_known = ARGV[2]
local ref = ARGV[3]
local event = ARGV[4]
local count = #KEYS - 8

local DONE_KEPT_S = 3600
local call, find, match = redis.call, string.find, string.match

seq_known = (seq_known == '0' or find(seq_known, '^[1-9]%d*$')) and tonumber(seq_known)
if not seq_known or seq_known >= 9007199254740992 then
  error({err = 'BADARG seq_known must be an integer from 0 to 2^53 - 1'})
end
if #ARGV ~= 4 + count then
  error({err = 'BADARG as many charges as counters are needed'})
end

-- Read all.
local time = call('TIME')
local state = call('HMGET', shard, 'epoch', 'seq', 'clock_us', 'released')
local now = math.max(time[1] * 1000000 + time[2], tonumber(state[3] or 0))
local seq = tonumber(state[2] or 0)
local hold = call('HGET', held, ref)
local finished = not hold and call('EXISTS', done) == 1

-- Decide.
if state[1] ~= epoch or seq < seq_known then
  return {'closed', seq, now}
end
if finished then
  return {'duplicate', seq, now}
end
if not hold then
  call('SET', done, 'tombstone|0,0,0||', 'EX', DONE_KEPT_S)
  return {'tombstone', seq, now}
end
local from, to, before, names = match(hold, '^%d+|(%d+)|(%d+)|([%d,]*)|([^\n]*)')
local give_back = tonumber(to) - math.max(now, tonumber(from))
local place, places, amounts, zeros, charged = {}, {}, {}, {}, {}
for i = 1, count do
  place[KEYS[8 + i]] = i
end
for name in string.gmatch(names, '[^\t]+') do
  places[#places + 1] = place[name]
end
for amount in string.gmatch(before, '%d+') do
  amounts[#amounts + 1], zeros[#zeros + 1] = amount, '0'
end
if #places ~= #amounts then
  error({err = 'BADARG the reservation has another number of counters'})
end

-- Write all.
for at, i in ipairs(places) do
  call('HINCRBY', KEYS[8 + i], 'held', 0 - tonumber(amounts[at]))
  if ARGV[4 + i] ~= '-' then
    charged[#charged + 1] = ARGV[4 + i] .. '0}'
  end
end
call('HDEL', held, ref)
call('ZREM', leases, ref)
call('HDEL', observed, ref)
call('SREM', holding, ref)
if give_back > 0 then
  call('HINCRBY', rates, 'tokens', 0 - give_back)
end
call('HSET', shard, 'clock_us', now, 'seq', seq + 1, 'released', (state[4] or 0) + 1)
call('SET', done, 'released|0,0,0|' .. table.concat(zeros, ',') .. '|', 'EX', DONE_KEPT_S)
call('XADD', events, '*', 'event', event, 'kind', 'terminal', 'seq', seq + 1,
  'charged', '[' .. table.concat(charged, ',') .. ']', 'late', '0', 'disputed', '0', 'prior', '0,0,0')
return {'released', seq + 1, now}
