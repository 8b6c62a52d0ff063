#!lua
--[[
  Reserve: hold an amount on every budget of an attempt, or on none.

  Guarantee: used + held + amount <= limit for every budget when it is held, however many callers
  race, and nothing is written unless everything fits. The same reference holds only once; a
  reference that is finished, or that a release has barred, holds nothing any more. Time is Redis
  time, and never runs backwards. A request's rate limits are asked after its budgets.

  A budget is one counter, or several: its sources, which follow each other in the order in which they
  are burnt. One of them is the plan's own, which also takes what goes beyond all of them (overage).

  KEYS[1]   shard           hash    epoch, seq, clock_us, policy, admitted, full
  KEYS[2]   customer        hash    rev, k:<secret_id> = expires_at_ms (0: never)
  KEYS[3]   rates           hash    requests, tokens: theoretical arrival times in us
  KEYS[4]   holding         set     the customer's held references
  KEYS[5]   held            hash    ref -> admitted_us|a|b|amount,...|counter key TAB ...\n record
  KEYS[6]   leases          zset    ref -> deadline in us
  KEYS[7]   done            string  this reference, finished
  KEYS[8..] counters        hash    used, held; the plan's own also carry, users; as many as holds, each
                                    named once; then those that the holds point to by number
  ARGV[1]   epoch           the shard's epoch as the caller knows it
  ARGV[2]   seq_known       the highest seq that the caller has seen of the shard
  ARGV[3]   ref             {request_id}:{attempt}
  ARGV[4]   secret_field    k:<secret_id>
  ARGV[5]   revision        of the customer, as the caller knows it
  ARGV[6]   policy          revision of the policy that the caller decided by
  ARGV[7]   first           1: the request's first attempt, 0: a later one
  ARGV[8]   requests_limit  per minute, or - for none
  ARGV[9]   tokens_limit    per minute, or - for none
  ARGV[10]  at_once_limit   requests under way at once, or - for none
  ARGV[11]  rate_tokens     what the tokens per minute take
  ARGV[12]  lease_us        how long it is held unless extended
  ARGV[13]  record          kept with the reservation, for its orphaned event
  ARGV[14..] holds          of a budget that is one counter: "amount limit starts_us ends_us", ends_us - for
                            a lifetime; else of each source in burn order, with the number of its budget:
                            "#budget amount limit kind starts_us ends_us", kind being plan or grant. The
                            plan's says more, as it applies, with numbers of KEYS:
                            " over=" what may go beyond all sources, - for anything
                            " carry=max,min before=" keys of the windows before, the newest first, of
                            which what was left over is carried into this one
                            " users=" how many users may have counters of their own; who comes later is
                            counted on those that each source names " shared=" (and " shared_before=")
  Returns   {"held", now_us, requests_tat_us, tokens_tat_us}, and if there are sources
            "amount,..." and "counter key TAB ..." that it came to
          | {"exceeded", now_us, used, held, granted, left, ...}   of all budgets, in order
          | {"limited", now_us, "requests" | "tokens" | "concurrent_requests", wait_us}
          | {"stale", "customer" | "secret" | "policy"} | {"window", now_us}
          | {"finished", "settled" | "released" | "expired"} | {"full"} | {"closed"}
]]
local shard = KEYS[1]
local customer = KEYS[2]
local rates = KEYS[3]
local holding = KEYS[4]
local held = KEYS[5]
local leases = KEYS[6]
local done = KEYS[7]
local epoch = ARGV[1]
local seq_known = ARGV[2]
local ref = ARGV[3]
local secret_field = ARGV[4]
local revision = ARGV[5]
local policy = ARGV[6]
local first = ARGV[7] == '1'
local requests_limit = ARGV[8]
local tokens_limit = ARGV[9]
local at_once_limit = ARGV[10]
local rate_tokens = ARGV[11]
local lease_us = ARGV[12]
local record = ARGV[13]
local count = #ARGV - 13

local EXACT = 9007199254740992
local BURST_US = 60000000
local COUNTER_KEPT_US = 35 * 86400 * 1000000
-- Redis writes numbers below EXACT in full; text joined from numbers needs format.
local call, find, match, format = redis.call, string.find, string.match, string.format
local max, min, ceil = math.max, math.min, math.ceil

local function integer(text, name)
  local number = (text == '0' or find(text, '^[1-9]%d*$')) and tonumber(text)
  if not number or number >= EXACT then
    error({err = 'BADARG ' .. name .. ' must be an integer from 0 to 2^53 - 1'})
  end
  return number
end

local function per_minute(text, name)
  local limit = text ~= '-' and integer(text, name)
  if limit == 0 then
    error({err = 'BADARG ' .. name .. ' must be at least 1, or -'})
  end
  return limit
end

seq_known, policy = integer(seq_known, 'seq_known'), integer(policy, 'policy')
rate_tokens, lease_us = integer(rate_tokens, 'rate_tokens'), integer(lease_us, 'lease_us')
requests_limit = per_minute(requests_limit, 'requests_limit')
tokens_limit = per_minute(tokens_limit, 'tokens_limit')
at_once_limit = at_once_limit ~= '-' and integer(at_once_limit, 'at_once_limit')
if count > #KEYS - 7 then
  error({err = 'BADARG as many counters as holds are needed'})
end

-- Read all.
local time = call('TIME')
local state = call('HMGET', shard, 'epoch', 'seq', 'clock_us', 'policy', 'admitted', 'full')
local now = max(time[1] * 1000000 + time[2], tonumber(state[3] or 0))
local known = call('HMGET', customer, 'rev', secret_field)
local finished = call('GET', done)
local already_held = call('HEXISTS', held, ref) == 1
local requests_stored, tokens_stored = 0, 0
if requests_limit or tokens_limit then
  local stored = call('HMGET', rates, 'requests', 'tokens')
  requests_stored = requests_limit and tonumber(stored[1] or 0) or 0
  tokens_stored = tokens_limit and tonumber(stored[2] or 0) or 0
end
local under_way = at_once_limit and first and call('SCARD', holding)
-- One pass without a table for each figure: tables are most of what a script costs.
local amounts, names, exceeded, outside, new_counters = nil, nil, false, false, false
local sourced, source_of
local i = 1
while i <= count do
  local counter = KEYS[7 + i]
  local amount, limit, starts_us, ends_us = match(ARGV[13 + i], '^(%d+) (%d+) (%d+) ([%d-]+)$')
  local asked, most, starts, ends = tonumber(amount), tonumber(limit), tonumber(starts_us), tonumber(ends_us)
  if amount then
    if asked >= EXACT or most >= EXACT or not (ends or ends_us == '-') then
      error({err = 'BADARG a hold must be "amount limit starts_us ends_us"'})
    end
    for j = 8, 6 + i do
      if KEYS[j] == counter then
        error({err = 'BADARG a counter must be named once'})
      end
    end
    local balance = call('HMGET', counter, 'used', 'held')
    exceeded = exceeded or (balance[1] or 0) + (balance[2] or 0) + asked > most
    outside = outside or now < starts or (ends and now >= ends)
    new_counters = new_counters or not balance[1]
    amounts = amounts and amounts .. ',' .. amount or amount
    i = i + 1
  else
    -- include reserve_sources.lua
  end
end
if not sourced and count ~= #KEYS - 7 then
  error({err = 'BADARG as many holds as counters are needed'})
end

-- Decide.
if state[1] ~= epoch or tonumber(state[2] or 0) < seq_known then
  return {'closed'}
end
if known[1] ~= revision then
  return {'stale', 'customer'}
end
local expires_at_ms = tonumber(known[2])
if not expires_at_ms or (expires_at_ms > 0 and now >= expires_at_ms * 1000) then
  return {'stale', 'secret'}
end
if policy < tonumber(state[4] or 0) then
  return {'stale', 'policy'}
end
if finished then
  local how = match(finished, '^%a+')
  return {'finished', how == 'tombstone' and 'released' or how}
end
if already_held then
  local reply = {'held', now, requests_stored, tokens_stored}
  if sourced then
    reply[5], reply[6] = match(call('HGET', held, ref), '^%d+|%d+|%d+|([%d,]*)|([^\n]*)')
  end
  return reply
end
if outside then
  return {'window', now}
end
if exceeded then
  local reply = {'exceeded', now}
  for budget = 1, count do
    local told = sourced and sourced[budget] and sourced[budget].told
    if not told and not (source_of and source_of[budget]) then
      local balance = call('HMGET', KEYS[7 + budget], 'used', 'held')
      local used, held_now = tonumber(balance[1] or 0), tonumber(balance[2] or 0)
      told = {used, held_now, 0, match(ARGV[13 + budget], '^%d+ (%d+)') - used - held_now}
    end
    for figure = 1, told and 4 or 0 do
      reply[#reply + 1] = told[figure]
    end
  end
  return reply
end
local requests_tat = requests_stored
if requests_limit and first then
  requests_tat = max(requests_tat, now) + ceil(BURST_US / requests_limit)
  if requests_tat - now > BURST_US then
    return {'limited', now, 'requests', min(requests_tat - now - BURST_US, BURST_US)}
  end
end
if under_way and under_way >= at_once_limit then
  return {'limited', now, 'concurrent_requests', 0}
end
local tokens_from, tokens_tat = 0, 0
if tokens_limit then
  tokens_from = max(tokens_stored, now)
  tokens_tat = tokens_from + ceil(rate_tokens * BURST_US / tokens_limit)
  if tokens_tat - now > BURST_US then
    return {'limited', now, 'tokens', min(tokens_tat - now - BURST_US, BURST_US)}
  end
end
-- Asked last: whoever would be refused anyway is told why.
if state[6] then
  return {'full'}
end

-- Write all.
for i = 1, count do
  local source = source_of and source_of[i]
  local counter = source and source.key or KEYS[7 + i]
  local amount = source and source.pays or tonumber(match(ARGV[13 + i], '^%d+'))
  if new_counters and call('HEXISTS', counter, 'used') == 0 then
    local starts_us, ends_us = match(ARGV[13 + i], source and '^#%d+ %d+ %d+ %l+ (%d+) ([%d-]+)' or ' (%d+) ([%d-]+)$')
    call('HSET', counter, 'used', 0)
    -- Never set: what a rebuild holds already on a counter of which nothing is used yet stays held.
    call('HINCRBY', counter, 'held', amount)
    if ends_us ~= '-' then
      -- A window's counter is asked for once more by the next window, which may carry over what it has left.
      local length_us = source and source.kind == 'grant' and 0 or ends_us - starts_us
      local expires_ms = ceil((ends_us + length_us + COUNTER_KEPT_US) / 1000)
      call('PEXPIREAT', counter, expires_ms)
      if source and source.joins then
        call('HSETNX', source.joins, 'users', 0)
        call('PEXPIREAT', source.joins, expires_ms)
      end
    end
  elseif amount > 0 then
    call('HINCRBY', counter, 'held', amount)
  end
  if source and source.carry then
    call('HSET', counter, 'carry', source.carry)
  end
  if source and source.joins then
    call('HINCRBY', source.joins, 'users', 1)
  end
end
if sourced then
  for i = 1, count do
    names = (names and names .. '\t' or '') .. (source_of[i] and source_of[i].key or KEYS[7 + i])
  end
else
  names = table.concat(KEYS, '\t', 8)
end
call('HSET', held, ref, format('%.0f|%.0f|%.0f|', now, tokens_from, tokens_tat)
  .. (amounts or '') .. '|' .. names .. '\n' .. record)
call('ZADD', leases, now + lease_us, ref)
call('SADD', holding, ref)
call('HSET', shard, 'clock_us', now, 'admitted', (state[5] or 0) + 1)
if requests_limit and first and tokens_limit then
  call('HSET', rates, 'requests', requests_tat, 'tokens', tokens_tat)
elseif requests_limit and first then
  call('HSET', rates, 'requests', requests_tat)
elseif tokens_limit then
  call('HSET', rates, 'tokens', tokens_tat)
end
return {'held', now, requests_tat, tokens_tat, sourced and amounts, sourced and names}
