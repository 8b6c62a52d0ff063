#!lua
--[[
  Top up: hold more for a reservation under way, on every budget of it or on none.

  Guarantee: used + held <= limit for every budget after it, however many callers race, and nothing
  is written unless everything fits. Totals are asked for, not differences: asking again after a
  lost reply holds nothing twice, and what is held never shrinks. The balances and the reservation
  change together, so that whoever ends it gives back all of it. The lease is renewed with it. The
  rate limits are not asked: they took the whole bound when the request was admitted. Nor is the
  window: that of admission counts.

  KEYS[1]   shard           hash    epoch, seq, clock_us
  KEYS[2]   held            hash    ref -> admitted_us|a|b|amount,...|counter key TAB ...\n record
  KEYS[3]   leases          zset    ref -> deadline in us
  KEYS[4]   observed        hash    ref -> output tokens observed
  KEYS[5..] counters        hash    used, held; in the order of the holds
  ARGV[1]   epoch           the shard's epoch as the caller knows it
  ARGV[2]   seq_known       the highest seq that the caller has seen of the shard
  ARGV[3]   lease_us        how long from now
  ARGV[4]   ref             {request_id}:{attempt}
  ARGV[5]   seen            output tokens observed
  ARGV[6..] holds           "amount limit" of each counter; the amount is the new total of this reservation.
                            Of a source of a budget that has several "#budget amount limit kind" as
                            `settle` has it, and " over=" what may go beyond all sources, - for anything
  Returns   {"topped_up", now_us, "amount,..."}   what it holds of all counters now, in order
          | {"exceeded", now_us, used, held, granted, left, ...}   of all budgets, in order
          | {"lost"} | {"closed"}
]]
local shard = KEYS[1]
local held = KEYS[2]
local leases = KEYS[3]
local observed = KEYS[4]
local epoch = ARGV[1]
local seq_known = ARGV[2]
local lease_us = ARGV[3]
local ref = ARGV[4]
local seen = ARGV[5]
local count = #KEYS - 4

local EXACT = 9007199254740992
local call, find, match = redis.call, string.find, string.match

local function integer(text, name)
  local number = text and (text == '0' or find(text, '^[1-9]%d*$')) and tonumber(text)
  if not number or number >= EXACT then
    error({err = 'BADARG ' .. name .. ' must be an integer from 0 to 2^53 - 1'})
  end
  return number
end

seq_known, lease_us = integer(seq_known, 'seq_known'), integer(lease_us, 'lease_us')
seen = integer(seen, 'seen')
if #ARGV ~= 5 + count then
  error({err = 'BADARG as many holds as counters are needed'})
end
local totals, limits, sourced = {}, {}, false
for i = 1, count do
  if find(ARGV[5 + i], '^#') then
    sourced = true
  else
    local total, limit = match(ARGV[5 + i], '^(%d+) (%d+)$')
    totals[i], limits[i] = integer(total, 'amount'), integer(limit, 'limit')
  end
end

-- Read all.
local time = call('TIME')
local state = call('HMGET', shard, 'epoch', 'seq', 'clock_us')
local now = math.max(time[1] * 1000000 + time[2], tonumber(state[3] or 0))
local hold = call('HGET', held, ref)
local seen_before = tonumber(call('HGET', observed, ref) or 0)

-- Decide.
if state[1] ~= epoch or tonumber(state[2] or 0) < seq_known then
  return {'closed'}
end
if not hold then
  return {'lost'}
end
local head, amounts, names, rest = match(hold, '^(%d+|%d+|%d+|)([%d,]*)|([^\n]*)(\n.*)$')
if names ~= table.concat(KEYS, '\t', 5) then
  error({err = 'BADARG the reservation has other counters'})
end
local own, more, reply, exceeded = {}, {}, {'exceeded', now}, false
for amount in string.gmatch(amounts, '%d+') do
  own[#own + 1] = tonumber(amount)
end
local function tell(used, held_now, granted, left)
  local at = #reply
  reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = used, held_now, granted, math.min(left, EXACT - 1)
end
-- include sources.lua
local i = 1
while i <= count do
  if totals[i] then
    local balance = call('HMGET', KEYS[4 + i], 'used', 'held')
    local now_used, now_held = tonumber(balance[1] or 0), tonumber(balance[2] or 0)
    more[i] = math.max(0, totals[i] - own[i])
    exceeded = exceeded or now_used + now_held + more[i] > limits[i]
    tell(now_used, now_held, 0, limits[i] - now_used - now_held)
    i = i + 1
  else
    local sources
    sources, i = sources_of(i, 5, 1, 4, own)
    local plan, holds, left, all_used, all_held, all_limits = sources.plan, 0, 0, 0, 0, 0
    for _, source in ipairs(sources) do
      source.left = math.max(0, source.limit - source.used - source.held)
      holds, left = holds + source.own, left + source.left
      all_used, all_held = all_used + source.used, all_held + source.held
      all_limits = all_limits + source.limit
    end
    local over = match(plan.more, ' over=([%d-]+)') or 0
    over = over == '-' and EXACT - 1 or over - math.max(0, plan.used + plan.held - plan.limit)
    left = left + (left > 0 and math.max(0, over) or over)
    local missing = math.max(0, sources.amount - holds)
    exceeded = exceeded or missing > left
    local plain_limit = match(ARGV[5 + plan.at], '^#%d+ %d+ (%d+)')
    tell(all_used, all_held, all_limits - plain_limit, left)
    burn(sources, missing)
    for _, source in ipairs(sources) do
      more[source.at] = source.pays
    end
  end
end
if exceeded then
  return reply
end

-- Write all.
for counter = 1, count do
  if more[counter] > 0 then
    call('HINCRBY', KEYS[4 + counter], 'held', more[counter])
  end
  totals[counter] = string.format('%.0f', own[counter] + more[counter])
end
local holds_now = table.concat(totals, ',')
call('HSET', held, ref, head .. holds_now .. '|' .. names .. rest)
call('ZADD', leases, now + lease_us, ref)
if seen > seen_before then
  call('HSET', observed, ref, seen)
end
call('HSET', shard, 'clock_us', now)
return {'topped_up', now, holds_now}
