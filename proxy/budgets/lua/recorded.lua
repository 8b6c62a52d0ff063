#!lua flags=no-writes
--[[
  Recorded: how far the ledger has come with a shard's events.

  Guarantee: one moment of shard and stream. Entries leave the stream only once they are in the
  ledger, so every event before the oldest entry is recorded; without an entry, every event is.

  KEYS[1]   shard           hash    epoch, seq
  KEYS[2]   events          stream  seq of each entry
  Returns   {epoch, recorded_through_seq}; the epoch is empty while the shard is not open
]]
local shard = KEYS[1]
local events = KEYS[2]

local state = redis.call('HMGET', shard, 'epoch', 'seq')
local through = tonumber(state[2] or 0)
local oldest = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
if oldest then
  local fields = oldest[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'seq' then
      through = math.min(through, tonumber(fields[i + 1]) - 1)
    end
  end
end
return {state[1] or '', through}
