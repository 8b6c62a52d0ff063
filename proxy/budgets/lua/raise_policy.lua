#!lua flags=allow-oom
--[[
  Raise the policy: move a policy revision upwards, where it stands as a string or in a field of a hash.

  Guarantee: it never goes down, in whatever order keepers publish.

  KEYS[1]   place           string  the newest revision; or hash with the field ARGV[2]
  ARGV[1]   revision        of the policy
  ARGV[2]   field           of the hash, or - where the place is a string
  Returns   the revision that stood there before, as a decimal string; "0" for none
]]
local place = KEYS[1]
local revision = ARGV[1]
local field = ARGV[2]

if not string.find(revision, '^[1-9]%d*$') or tonumber(revision) >= 9007199254740992 then
  error({err = 'BADARG revision must be an integer from 1 to 2^53 - 1'})
end

-- Read all.
local before
if field == '-' then
  before = redis.call('GET', place) or '0'
else
  before = redis.call('HGET', place, field) or '0'
end

-- Decide.
if tonumber(before) >= tonumber(revision) then
  return before
end

-- Write all.
if field == '-' then
  redis.call('SET', place, revision)
else
  redis.call('HSET', place, field, revision)
end
return before
