-- Budgets of several sources: `sources_of` reads one of them from its first counter on, `burn` divides an amount.
local function sources_of(first, texts_at, step, counters_at, own)
  local sources, number, i = {}, match(ARGV[texts_at + step * first], '^#%d+ '), first
  repeat
    local amount, limit, kind, more = match(ARGV[texts_at + step * i], '^#%d+ (%d+) (%d+) (%l+)(.*)$')
    if not number or not amount or (kind == 'plan' and sources.plan) or not own[i]
      or integer(amount, 'amount') ~= (sources.amount or tonumber(amount)) then
      error({err = 'BADARG a source must be "#budget amount limit kind"'})
    end
    local balance = call('HMGET', KEYS[counters_at + i], 'used', 'held', 'carry')
    limit = integer(limit, 'limit') + (find(more, ' carry', 1, true) and balance[3] or 0)
    local source = {at = i, kind = kind, limit = limit, own = own[i], more = more,
      used = tonumber(balance[1] or 0), held = tonumber(balance[2] or 0)}
    sources[#sources + 1], sources.amount = source, tonumber(amount)
    sources.plan = kind == 'plan' and source or sources.plan
    i = i + 1
  until i > count or match(ARGV[texts_at + step * i], '^#%d+ ') ~= number
  if not sources.plan then
    error({err = 'BADARG one source of a budget must be the plan'})
  end
  return sources, i
end

-- In order from what each has left; what goes beyond all of them is the plan's.
local function burn(sources, amount)
  for _, source in ipairs(sources) do
    source.pays = math.min(amount, source.left)
    amount = amount - source.pays
  end
  sources.plan.pays = sources.plan.pays + amount
end
