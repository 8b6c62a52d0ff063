#!lua flags=allow-oom
--[[
  Settle: charge an attempt for what it really used, and write its usage event.

  Guarantee: counters and event change together and once for each reference, also when memory is
  short. What the provider has billed is always taken, be it more than was held or late: after
  expiry or release the difference is applied and recorded as a correction. Another usage for a
  settled reference becomes a disputed correction (once) and leaves the counters alone. A
  reference that Redis does not know (any more) changes nothing.

  KEYS[1]   shard           hash    epoch, seq, clock_us, settled
  KEYS[2]   rates           hash    tokens: theoretical arrival time in us
  KEYS[3]   holding         set     the customer's held references
  KEYS[4]   held            hash    ref -> admitted_us|a|b|amount,...|counter key TAB ...\n record
  KEYS[5]   leases          zset    ref -> deadline in us
  KEYS[6]   observed        hash    ref -> output tokens observed
  KEYS[7]   done            string  state|input,output,cost_pico|charged,...|disputed usage;...
  KEYS[8]   events          stream  event, kind, seq, charged, late, disputed, prior
  KEYS[9..] counters        hash    used, held; in the order of the holds
  ARGV[1]   epoch           the shard's epoch as the caller knows it
  ARGV[2]   seq_known       the highest seq that the caller has seen of the shard
  ARGV[3]   ref             {request_id}:{attempt}
  ARGV[4]   usage           "input,output,cost_pico"
  ARGV[5]   tokens_limit    per minute as at admission, or - for none
  ARGV[6]   rate_tokens     what the tokens per minute really took
  ARGV[7]   event           the usage event as JSON
  ARGV[8..] charges         of each counter: the amount, then its part of the event's `charged` as
                            JSON without the amount and the closing brace. Of a source of a budget that
                            has several, in burn order, "#budget amount limit kind" instead, with the
                            amount of the whole budget; " carry" if what was carried over counts too
  Returns   {"settled" | "late" | "duplicate" | "conflict" | "unknown" | "closed", seq, now_us}
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
local usage = ARGV[4]
local tokens_limit = ARGV[5]
local rate_tokens = ARGV[6]
local event = ARGV[7]
local count = #KEYS - 8

local BURST_US = 60000000
local DONE_KEPT_S = 3600
local call, find, match, format = redis.call, string.find, string.match, string.format

local function integer(text, name)
  local number = (text == '0' or find(text, '^[1-9]%d*$')) and tonumber(text)
  if not number or number >= 9007199254740992 then
    error({err = 'BADARG ' .. name .. ' must be an integer from 0 to 2^53 - 1'})
  end
  return number
end

seq_known, rate_tokens = integer(seq_known, 'seq_known'), integer(rate_tokens, 'rate_tokens')
tokens_limit = tokens_limit ~= '-' and integer(tokens_limit, 'tokens_limit')
if not find(usage, '^%d+,%d+,%d+$') then
  error({err = 'BADARG usage must be "input,output,cost_pico"'})
end
if #ARGV ~= 7 + 2 * count then
  error({err = 'BADARG as many charges as counters are needed'})
end
local sourced = false
for i = 1, count do
  if find(ARGV[6 + 2 * i], '^#') then
    sourced = true
  else
    integer(ARGV[6 + 2 * i], 'amount')
  end
end

-- Read all.
local time = call('TIME')
local state = call('HMGET', shard, 'epoch', 'seq', 'clock_us', 'settled')
local now = math.max(time[1] * 1000000 + time[2], tonumber(state[3] or 0))
local seq = tonumber(state[2] or 0)
local hold = call('HGET', held, ref)
local finished = not hold and call('GET', done)

-- Decide.
if state[1] ~= epoch or seq < seq_known then
  return {'closed', seq, now}
end
local outcome, kind, late, disputed, prior = 'settled', 'terminal', '0', '0', '0,0,0'
local before, disputes = '', ''
local give_back = 0
if hold then
  local from, to
  from, to, before = match(hold, '^%d+|(%d+)|(%d+)|([%d,]*)|')
  from, to = tonumber(from), tonumber(to)
  local unused = tokens_limit and to - from - math.ceil(rate_tokens * BURST_US / tokens_limit) or 0
  give_back = math.min(unused, to - math.max(now, from))
else
  local how
  how, prior, before, disputes = match(finished or 'unknown|||', '^(%a+)|([%d,]*)|([%d,]*)|([%d,;]*)$')
  if how == 'unknown' or how == 'tombstone' then
    return {'unknown', seq, now}
  end
  kind = 'correction'
  if how == 'settled' then
    if prior == usage or find(disputes, usage .. ';', 1, true) then
      return {'duplicate', seq, now}
    end
    outcome, disputed = 'conflict', '1'
    disputes = disputes .. usage .. ';'
  else
    outcome, late = 'late', '1'
  end
end
local amounts_before = {}
for amount in string.gmatch(before, '%d+') do
  amounts_before[#amounts_before + 1] = tonumber(amount)
end
if #amounts_before ~= count then
  error({err = 'BADARG the reservation has another number of counters'})
end
-- What each source pays: of a budget that is one counter, all of it.
local pays, is_grant = {}, {}
if sourced and outcome ~= 'conflict' then
  -- include sources.lua
  local i = 1
  while i <= count do
    if find(ARGV[6 + 2 * i], '^#') then
      local sources
      sources, i = sources_of(i, 6, 2, 8, amounts_before)
      local paid = 0
      for _, source in ipairs(sources) do
        -- What it held itself is free again; what it has paid is used, and taken into account.
        source.held = source.held - (hold and source.own or 0)
        source.left = math.max(0, source.limit - source.used - source.held)
        paid = paid + (hold and 0 or source.own)
      end
      if sources.amount >= paid then
        burn(sources, sources.amount - paid)
      else
        -- Given back: first what lies beyond the plan's own limit, then the last that had paid, and so on.
        local back, plan = paid - sources.amount, sources.plan
        plan.pays = 0 - math.min(back, plan.own, math.max(0, plan.used + plan.held - plan.limit))
        back = back + plan.pays
        for at = #sources, 1, -1 do
          local source = sources[at]
          local less = math.min(back, source.own + (source.pays or 0))
          source.pays = (source.pays or 0) - less
          back = back - less
        end
      end
      for _, source in ipairs(sources) do
        pays[source.at] = source.pays + (hold and 0 or source.own)
        is_grant[source.at] = source.kind == 'grant'
      end
    else
      i = i + 1
    end
  end
end

-- Write all.
local charged, amounts = '', ''
for i = 1, outcome == 'conflict' and 0 or count do
  local counter, amount, separator = KEYS[8 + i], pays[i] or ARGV[6 + 2 * i], i > 1 and ',' or ''
  amounts = amounts .. separator .. (pays[i] and format('%.0f', amount) or amount)
  if hold then
    call('HINCRBY', counter, 'held', 0 - amounts_before[i])
  else
    amount = format('%.0f', amount - amounts_before[i])
  end
  call('HINCRBY', counter, 'used', amount)
  if not is_grant[i] or tonumber(amount) ~= 0 then
    charged = charged .. (charged ~= '' and ',' or '') .. ARGV[7 + 2 * i] .. amount .. '}'
  end
end
if hold then
  call('HDEL', held, ref)
  call('ZREM', leases, ref)
  call('HDEL', observed, ref)
  call('SREM', holding, ref)
  if give_back > 0 then
    call('HINCRBY', rates, 'tokens', 0 - give_back)
  end
  call('HSET', shard, 'clock_us', now, 'seq', seq + 1, 'settled', (state[4] or 0) + 1)
else
  call('HSET', shard, 'clock_us', now, 'seq', seq + 1)
end
if outcome == 'conflict' then
  call('SET', done, 'settled|' .. prior .. '|' .. before .. '|' .. disputes, 'EX', DONE_KEPT_S)
else
  call('SET', done, 'settled|' .. usage .. '|' .. amounts .. '|', 'EX', DONE_KEPT_S)
end
call('XADD', events, '*', 'event', event, 'kind', kind, 'seq', seq + 1,
  'charged', '[' .. charged .. ']', 'late', late, 'disputed', disputed, 'prior', prior)
return {outcome, seq + 1, now}
