    -- A budget of several sources; `i` is the first. Whose counters they are is decided first.
    sourced, source_of = sourced or {}, source_of or {}
    local budget, plan, number = {}, nil, match(ARGV[13 + i], '^#%d+ ')
    sourced[i] = budget
    repeat
      local asked, limit, kind, starts_us, ends_us, more =
        match(ARGV[13 + i], '^#%d+ (%d+) (%d+) (%l+) (%d+) ([%d-]+)(.*)$')
      local source = {at = i, limit = tonumber(limit), kind = kind, more = more, starts = tonumber(starts_us),
        ends = tonumber(ends_us), asked = tonumber(asked)}
      if not number or not asked or not (source.ends or ends_us == '-') or (kind == 'plan' and plan)
        or source.asked >= EXACT or source.limit >= EXACT or (budget[1] and budget[1].asked ~= source.asked) then
        error({err = 'BADARG a source must be "#budget amount limit kind starts_us ends_us"'})
      end
      budget[#budget + 1] = source
      plan = kind == 'plan' and source or plan
      i = i + 1
    until i > count or match(ARGV[13 + i], '^#%d+ ') ~= number
    if not plan then
      error({err = 'BADARG one source of a budget must be the plan'})
    end
    local users, is_shared = tonumber(match(plan.more, ' users=(%d+)')), false
    if users and call('HEXISTS', KEYS[7 + plan.at], 'used') == 0 then
      local shared = KEYS[tonumber(match(plan.more, ' shared=(%d+)'))]
      is_shared = tonumber(call('HGET', shared, 'users') or 0) >= users
      plan.joins = not is_shared and shared
    end

    local granted, all_used, all_held, left, over = 0, 0, 0, 0, 0
    for _, source in ipairs(budget) do
      source.key = KEYS[is_shared and tonumber(match(source.more, ' shared=(%d+)')) or 7 + source.at]
      for _, other in pairs(source_of) do
        if other.key == source.key then
          error({err = 'BADARG a counter must be named once'})
        end
      end
      local balance = call('HMGET', source.key, 'used', 'held', 'carry')
      local used, held_now, limit = tonumber(balance[1] or 0), tonumber(balance[2] or 0), source.limit
      if source.kind == 'plan' then
        local carry_most, carry_least = match(source.more, ' carry=(%d+),(%d+)')
        local carry = carry_most and balance[3] and tonumber(balance[3])
        if carry_most and not carry then
          -- The window is touched for the first time: what the ones before have left, of which those that
          -- nobody has touched have left everything.
          local before = match(source.more, is_shared and ' shared_before=([%d,]*)' or ' before=([%d,]*)')
          local untouched = 0
          carry = 0
          for index in string.gmatch(before, '%d+') do
            local past = call('HMGET', KEYS[tonumber(index)], 'used', 'held', 'carry')
            if past[1] then
              carry = min(tonumber(carry_most), max(limit + (past[3] or 0) - past[1] - (past[2] or 0), carry_least))
              break
            end
            untouched = untouched + 1
          end
          for _ = 1, untouched do
            carry = min(tonumber(carry_most), max(limit + carry, carry_least))
          end
          source.carry = carry
        end
        limit = limit + (carry or 0)
        granted = granted + (carry or 0)
        local may_go_over = match(source.more, ' over=([%d-]+)') or 0
        over = may_go_over == '-' and EXACT - 1 or may_go_over - max(0, used + held_now - limit)
      else
        granted = granted + limit
      end
      source.left = max(0, limit - used - held_now)
      all_used, all_held, left = all_used + used, all_held + held_now, left + source.left
      outside = outside or now < source.starts or (source.ends and now >= source.ends)
      new_counters = new_counters or not balance[1]
      source_of[source.at] = source
    end
    -- What is overdrawn beyond all sources admits nothing; a grant that comes later may be used all the same.
    left = left + (left > 0 and max(0, over) or over)
    budget.told = {all_used, all_held, granted, min(left, EXACT - 1)}
    exceeded = exceeded or plan.asked > left

    -- In order from what each has left; what goes beyond all of them is the plan's.
    local rest = plan.asked
    for _, source in ipairs(budget) do
      source.pays = min(rest, source.left)
      rest = rest - source.pays
    end
    plan.pays = plan.pays + rest
    for _, source in ipairs(budget) do
      local amount = format('%.0f', source.pays)
      amounts = amounts and amounts .. ',' .. amount or amount
    end
