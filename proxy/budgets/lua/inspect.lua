#!lua flags=no-writes
--[[
  Inspect: one moment of a shard, for checking the invariants.

  Guarantee: everything in the reply was true at once; nothing is written.

  KEYS[1]   shard           hash    epoch, seq, clock_us, admitted, settled, released, expired
  KEYS[2]   held            hash    ref -> admitted_us|a|b|amount,...|counter key TAB ...\n record
  KEYS[3]   leases          zset    ref -> deadline in us
  KEYS[4]   events          stream  usage events that the ledger has not acknowledged
  KEYS[5..] counters        hash    used, held
  Returns   {now_us, {field, value, ...} of shard, {ref, hold without its record, ...},
             {ref, deadline, ...}, length of events, {used, held, used, held, ...} of counters}
]]
local shard = KEYS[1]
local held = KEYS[2]
local leases = KEYS[3]
local events = KEYS[4]

local call, match = redis.call, string.match

local time = call('TIME')
local now = math.max(time[1] * 1000000 + time[2], tonumber(call('HGET', shard, 'clock_us') or 0))
local holds = call('HGETALL', held)
for i = 2, #holds, 2 do
  holds[i] = match(holds[i], '^[^\n]*')
end
local balances = {}
for i = 5, #KEYS do
  local balance = call('HMGET', KEYS[i], 'used', 'held')
  balances[#balances + 1], balances[#balances + 2] = balance[1] or '0', balance[2] or '0'
end
return {now, call('HGETALL', shard), holds, call('ZRANGE', leases, 0, -1, 'WITHSCORES'),
  call('XLEN', events), balances}
