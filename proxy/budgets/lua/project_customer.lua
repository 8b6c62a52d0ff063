#!lua flags=allow-oom
--[[
  Project a customer: put everything that admission asks about a customer in the place of what was there.

  Guarantee: the revision, the document and the secrets change in one moment, so that no request is
  ever admitted by an old secret under a new revision; an older projection never replaces a newer
  one. It works when memory is short too: a revocation must not wait for memory.

  KEYS[1]   customer        hash    rev, doc, k:<secret_id> = expires_at_ms (0: never)
  ARGV[1]   revision        of the customer
  ARGV[2..] pairs           field, value, ...; none: the customer is taken out
  Returns   1: projected | 0: what is there is newer
]]
local customer = KEYS[1]
local revision = ARGV[1]

if not string.find(revision, '^[1-9]%d*$') or tonumber(revision) >= 9007199254740992 then
  error({err = 'BADARG revision must be an integer from 1 to 2^53 - 1'})
end
if #ARGV % 2 ~= 1 then
  error({err = 'BADARG every field needs a value'})
end

-- Read all.
local projected = tonumber(redis.call('HGET', customer, 'rev') or 0)

-- Decide.
if projected > tonumber(revision) then
  return 0
end

-- Write all.
redis.call('DEL', customer)
if #ARGV > 1 then
  redis.call('HSET', customer, 'rev', revision)
  -- One pair at a time: a customer may have more secrets than `unpack` can take.
  for i = 2, #ARGV, 2 do
    redis.call('HSET', customer, ARGV[i], ARGV[i + 1])
  end
end
return 1
