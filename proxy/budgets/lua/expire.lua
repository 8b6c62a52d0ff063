#!lua flags=allow-oom
--[[
  Expire: end a reservation whose lease has run out, and charge what it may have used.

  Guarantee: only a reservation that is still overdue, and of which nothing more was observed
  than the caller saw, is charged; counters and event change together and once. Whoever extended
  or finished it meanwhile wins. The tokens per minute get nothing back: the lease outlasts them.

  KEYS[1]   shard           hash    epoch, seq, clock_us, expired
  KEYS[2]   holding         set     the customer's held references
  KEYS[3]   held            hash    ref -> admitted_us|a|b|amount,...|counter key TAB ...\n record
  KEYS[4]   leases          zset    ref -> deadline in us
  KEYS[5]   observed        hash    ref -> output tokens observed
  KEYS[6]   done            string  state|input,output,cost_pico|charged,...|disputed usage;...
  KEYS[7]   events          stream  event, kind, seq, charged, late, disputed, prior
  KEYS[8..] counters        hash    used, held; in the order of the holds
  ARGV[1]   epoch           the shard's epoch as the caller knows it
  ARGV[2]   seq_known       the highest seq that the caller has seen of the shard
  ARGV[3]   ref             {request_id}:{attempt}
  ARGV[4]   observed_seen   output tokens that the charge was worked out from
  ARGV[5]   usage           "input,output,cost_pico"
  ARGV[6]   event           the usage event as JSON
  ARGV[7..] charges         of each counter: the amount, then its part of the event's `charged` as
                            JSON without the amount and the closing brace; as `settle` has it, also
                            where a budget has several sources
  Returns   {"settled" | "duplicate" | "closed", seq, now_us}
]]
local shard = KEYS[1]
local holding = KEYS[2]
local held = KEYS[3]
local leases = KEYS[4]
local observed = KEYS[5]
local done = KEYS[6]
local events = KEYS[7]
local epoch = ARGV[1]
local seq_known = ARGV[2]
local ref = ARGV[3]
local observed_seen = ARGV[4]
local usage = ARGV[5]
local event = ARGV[6]
local count = #KEYS - 7

local DONE_KEPT_S = 3600
local call, find, match = redis.call, string.find, string.match

local function integer(text, name)
  local number = (text == '0' or find(text, '^[1-9]%d*$')) and tonumber(text)
  if not number or number >= 9007199254740992 then
    error({err = 'BADARG ' .. name .. ' must be an integer from 0 to 2^53 - 1'})
  end
  return number
end

seq_known, observed_seen = integer(seq_known, 'seq_known'), integer(observed_seen, 'observed_seen')
if not find(usage, '^%d+,%d+,%d+$') then
  error({err = 'BADARG usage must be "input,output,cost_pico"'})
end
if #ARGV ~= 6 + 2 * count then
  error({err = 'BADARG as many charges as counters are needed'})
end
local amounts, sourced = {}, false
for i = 1, count do
  amounts[i] = ARGV[5 + 2 * i]
  if find(amounts[i], '^#') then
    sourced = true
  else
    integer(amounts[i], 'amount')
  end
end

-- Read all.
local time = call('TIME')
local state = call('HMGET', shard, 'epoch', 'seq', 'clock_us', 'expired')
local now = math.max(time[1] * 1000000 + time[2], tonumber(state[3] or 0))
local seq = tonumber(state[2] or 0)
local hold = call('HGET', held, ref)
local deadline = tonumber(call('ZSCORE', leases, ref))
local observed_now = tonumber(call('HGET', observed, ref) or 0)

-- Decide.
if state[1] ~= epoch or seq < seq_known then
  return {'closed', seq, now}
end
if not hold or (deadline and deadline > now) or observed_now ~= observed_seen then
  return {'duplicate', seq, now}
end
local held_amounts, charged = {}, {}
for amount in string.gmatch(match(hold, '^%d+|%d+|%d+|([%d,]*)|'), '%d+') do
  held_amounts[#held_amounts + 1] = tonumber(amount)
end
if #held_amounts ~= count then
  error({err = 'BADARG the reservation has another number of counters'})
end

local is_grant = {}
if sourced then
  -- include sources.lua
  local i = 1
  while i <= count do
    if find(amounts[i], '^#') then
      local sources
      sources, i = sources_of(i, 5, 2, 7, held_amounts)
      for _, source in ipairs(sources) do
        source.left = math.max(0, source.limit - source.used - source.held + source.own)
      end
      burn(sources, sources.amount)
      for _, source in ipairs(sources) do
        amounts[source.at] = string.format('%.0f', source.pays)
        is_grant[source.at] = source.kind == 'grant'
      end
    else
      i = i + 1
    end
  end
end

-- Write all.
for i = 1, count do
  call('HINCRBY', KEYS[7 + i], 'held', 0 - held_amounts[i])
  call('HINCRBY', KEYS[7 + i], 'used', amounts[i])
  if not is_grant[i] or amounts[i] ~= '0' then
    charged[#charged + 1] = ARGV[6 + 2 * i] .. amounts[i] .. '}'
  end
end
call('HDEL', held, ref)
call('ZREM', leases, ref)
call('HDEL', observed, ref)
call('SREM', holding, ref)
call('HSET', shard, 'clock_us', now, 'seq', seq + 1, 'expired', (state[4] or 0) + 1)
call('SET', done, 'expired|' .. usage .. '|' .. table.concat(amounts, ',') .. '|', 'EX', DONE_KEPT_S)
call('XADD', events, '*', 'event', event, 'kind', 'terminal', 'seq', seq + 1,
  'charged', '[' .. table.concat(charged, ',') .. ']', 'late', '0', 'disputed', '0', 'prior', '0,0,0')
return {'settled', seq + 1, now}
