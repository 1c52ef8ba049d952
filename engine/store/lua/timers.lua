--[[
  timers: due times with a lease. A member is claimed by one worker at a time and stays until it is done, so a worker
  that dies with it only delays it. What a member does must be harmless the second time.
  tests tests/lua/test_timers.py
]]

--[[
  due_add: note that something is due; an earlier time already noted wins.

  keys  [1] due ZSET
  args  [1] member [2] milliseconds from now
  reply {'ok', due time}
  invariants  what was noted while the member was claimed is not dropped with the claim
  cost  O(log members)
]]
local function due_add(keys, args)
    local at = now_ms() + tonumber(args[2])
    local had = tonumber(rc('ZSCORE', keys[1], args[1]) or '')
    if had and had <= at then
        -- A millisecond sooner than it stands: if that is a claim, its holder finds it lost and does not drop the
        -- member, which might concern what happened before this note.
        at = had - 1
    end
    rc('ZADD', keys[1], int(at), args[1])
    return { 'ok', int(at) }
end

--[[
  due_claim: take what is due for `lease` milliseconds.

  keys  [1] due ZSET
  args  [1] how many at most [2] lease, milliseconds
  reply {milliseconds until the next is due or -1, member, lease, member, lease …}
  cost  O(taken)
]]
local function due_claim(keys, args)
    local now = now_ms()
    local lease = int(now + tonumber(args[2]))
    local reply = { -1 }
    for _, member in ipairs(rc('ZRANGEBYSCORE', keys[1], '-inf', int(now), 'LIMIT', 0, args[1])) do
        rc('ZADD', keys[1], lease, member)
        reply[#reply + 1] = member
        reply[#reply + 1] = lease
    end
    local next = rc('ZRANGE', keys[1], 0, 0, 'WITHSCORES')
    if next[2] then
        reply[1] = math.max(0, tonumber(next[2]) - now)
    end
    return reply
end

--[[
  due_done: drop a member, or move it, unless another worker has taken it meanwhile.

  keys  [1] due ZSET
  args  [1] member [2] the lease it was claimed with [3] milliseconds until it is due again, or ''
  reply {'ok'} | {'lost'}
  cost  O(log members)
]]
local function due_done(keys, args)
    if rc('ZSCORE', keys[1], args[1]) ~= args[2] then
        return { 'lost' }
    end
    if args[3] == '' then
        rc('ZREM', keys[1], args[1])
    else
        rc('ZADD', keys[1], int(now_ms() + tonumber(args[3])), args[1])
    end
    return { 'ok' }
end

register('due_add', due_add)
register('due_claim', due_claim)
register('due_done', due_done)
