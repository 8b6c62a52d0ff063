#!lua flags=allow-oom
--[[
  Close: take a shard's epoch away, if the shard knows less than the ledger has recorded of it.

  Guarantee: a shard that has come as far as the record stays open, and is not touched. A closed one
  admits nothing and settles nothing until it is rebuilt and given another epoch.

  KEYS[1]   shard           hash    epoch, seq
  ARGV[1]   recorded        the highest seq that the ledger has of the shard
  Returns   1: closed now | 0: it was closed already, or is not behind
]]
local shard = KEYS[1]
local recorded = ARGV[1]

if not (recorded == '0' or string.find(recorded, '^[1-9]%d*$')) or tonumber(recorded) >= 9007199254740992 then
  error({err = 'BADARG recorded must be an integer from 0 to 2^53 - 1'})
end

-- Read all.
local state = redis.call('HMGET', shard, 'epoch', 'seq')

-- Decide.
if not state[1] or tonumber(state[2] or 0) >= tonumber(recorded) then
  return 0
end

-- Write all.
redis.call('HDEL', shard, 'epoch')
return 1
