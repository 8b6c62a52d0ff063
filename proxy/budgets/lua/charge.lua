#!lua flags=allow-oom
--[[
  Charge: put on the counters what the ledger has recorded for an attempt that Redis does not know.

  Guarantee: once for each reference while Redis remembers it; nothing on a closed shard, nor for a
  reference that is under way or finished. No event is written: it is in the ledger already.

  KEYS[1]   shard           hash    epoch
  KEYS[2]   held            hash    references under way
  KEYS[3]   done            string  state|input,output,cost_pico|charged,...|
  KEYS[4..] counters        hash    used, held
  ARGV[1]   ref             {request_id}:{attempt}
  ARGV[2]   usage           "input,output,cost_pico"
  ARGV[3..] charges         of each counter: the signed amount, then when it expires in ms (0: never)
  Returns   "charged" | "duplicate" | "closed"
]]
local shard = KEYS[1]
local held = KEYS[2]
local done = KEYS[3]
local ref = ARGV[1]
local usage = ARGV[2]
local count = #KEYS - 3

local DONE_KEPT_S = 3600
local call, find = redis.call, string.find

if not find(usage, '^%d+,%d+,%d+$') or #ARGV ~= 2 + 2 * count then
  error({err = 'BADARG usage "input,output,cost_pico", and two charges of each counter, are needed'})
end
for i = 3, #ARGV do
  if not find(ARGV[i], '^-?%d+$') then
    error({err = 'BADARG an amount and a time must be integers'})
  end
end

-- Read all, and decide.
if call('HEXISTS', shard, 'epoch') == 0 then
  return 'closed'
end
if call('HEXISTS', held, ref) == 1 or call('EXISTS', done) == 1 then
  return 'duplicate'
end

-- Write all.
local amounts = ''
for i = 1, count do
  local counter, amount, expires_ms = KEYS[3 + i], ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  local new = call('EXISTS', counter) == 0
  call('HINCRBY', counter, 'used', amount)
  if new and expires_ms ~= '0' then
    call('PEXPIREAT', counter, expires_ms)
  end
  amounts = amounts .. (i > 1 and ',' or '') .. amount
end
call('SET', done, 'settled|' .. usage .. '|' .. amounts .. '|', 'EX', DONE_KEPT_S)
return 'charged'
