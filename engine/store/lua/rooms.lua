--[[
  rooms: life of a room, and reading it.

  A room is created by room_put only. Its state moves by room_step; which steps exist is the table in
  engine/rooms/lifecycle.py, which passes the states a step may start from.
]]

--[[
  room_put: create a room or change its description.

  keys  [1] meta [2] log [3] bus
  args  [1] fallback epoch [2] epoch for a new room [3] body: title, cover, playback, starts_at as the inside of a JSON
        object [4] slow mode between comments of one viewer, milliseconds [5] how long facts are kept, milliseconds
  reply {'created' | 'updated' | 'unchanged' | 'room_not_live'}
  cost  O(1)
  tests tests/lua/test_rooms.py
]]
local function room_put(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room then
        local now = int(now_ms())
        rc('HSET', keys[1], 'epoch', args[2], 'seq', 0, 'state', 'scheduled', 'created', now, 'body', args[3],
            'slow_ms', args[4], 'facts_kept_ms', args[5], 'likes', 0, 'peak', 0, 'comment', 0, 'notice_version', 0)
        return { 'created' }
    end
    if OVER[room.state] then
        return refuse('room_not_live', '"state":"' .. room.state .. '"')
    end
    local was = rc('HGET', keys[1], 'body')
    rc('HSET', keys[1], 'slow_ms', args[4], 'facts_kept_ms', args[5])
    if was == args[3] then
        return { 'unchanged' }
    end
    rc('HSET', keys[1], 'body', args[3])
    fact(room, 'room.updated', args[3])
    return { 'updated' }
end

--[[
  room_step: one step of the room's life, asked by a console.

  keys  console
  args  console, [8] states it may start from, comma-separated with commas at both ends [9] target state
  reply {'ok', {"state", "again"?}} | {'conflict', state} | {'room_not_found'}
  cost  O(1)
  tests tests/lua/test_rooms.py
]]
local function room_step(keys, args)
    local room, reply = begin(keys, args, true)
    if not room then
        return reply
    end
    local from, to = args[8], args[9]
    if room.state == to or (to == 'closing' and room.state == 'closed') then
        return { 'ok', '{"state":"' .. room.state .. '","again":true}' }
    end
    if not string.find(from, ',' .. room.state .. ',', 1, true) then
        return refuse('conflict', '"state":"' .. room.state .. '"')
    end
    local before = '{"state":"' .. room.state .. '"}'
    step_room(room, to, '')
    return finish(room, '{"state":"' .. to .. '"}', before)
end

--[[
  room_settle: leave `closing` once nothing is open any more. Doing it twice is harmless.

  keys  [1] meta [2] log [3] bus
  args  [1] fallback epoch
  reply {'closed' | 'open' | 'not_closing' | 'room_not_found'}
  cost  O(1)
  tests tests/lua/test_rooms.py
]]
local function room_settle(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room then
        return refuse('room_not_found')
    end
    if room.state ~= 'closing' then
        return { 'not_closing' }
    end
    step_room(room, 'closed', '')
    return { 'closed' }
end

--[[
  room_read: everything a snapshot needs. Writes nothing.

  keys  [1] meta [2] log [3] items [4] shelf [5] comments [6] present
  args  [1] comments wanted [2] recent facts wanted
  reply {} when there is no room, else {now, meta fields and values, items in shelf order, recent comments oldest first
        as number, JSON …, recent facts as seq, JSON …, viewers online}
  cost  O(items + comments + facts)
  tests tests/lua/test_rooms.py
]]
local function room_read(keys, args)
    local meta = rc('HGETALL', keys[1])
    if #meta == 0 then
        return {}
    end
    local items = {}
    local ids = rc('ZRANGE', keys[4], 0, -1)
    if #ids > 0 then
        items = rc('HMGET', keys[3], unpack(ids))
    end
    local comments = {}
    local recent = rc('XREVRANGE', keys[5], '+', '-', 'COUNT', args[1])
    for i = #recent, 1, -1 do
        comments[#comments + 1] = string.match(recent[i][1], '^(%d+)')
        comments[#comments + 1] = recent[i][2][2]
    end
    local facts = {}
    local last = rc('XREVRANGE', keys[2], '+', '-', 'COUNT', args[2])
    for i = #last, 1, -1 do
        facts[#facts + 1] = string.match(last[i][1], '^(%d+)')
        facts[#facts + 1] = last[i][2][2]
    end
    return { int(now_ms()), meta, items, comments, facts, rc('HLEN', keys[6]) }
end

--[[
  facts_since: the facts after a place, for resumes and gaps. Writes nothing.

  keys  [1] meta [2] log
  args  [1] seq [2] how many at most
  reply {} when there is no room, else {epoch, seq of the room, first seq held, seq, JSON, seq, JSON …}
  cost  O(facts returned)
  tests tests/lua/test_rooms.py
]]
local function facts_since(keys, args)
    local m = rc('HMGET', keys[1], 'epoch', 'seq')
    if not m[1] then
        return {}
    end
    local oldest = rc('XRANGE', keys[2], '-', '+', 'COUNT', 1)
    local first = int(tonumber(m[2]) + 1)
    if #oldest > 0 then
        first = string.match(oldest[1][1], '^(%d+)')
    end
    local reply = { m[1], m[2], first }
    local entries = rc('XRANGE', keys[2], int(tonumber(args[1]) + 1) .. '-0', '+', 'COUNT', args[2])
    for i = 1, #entries do
        reply[#reply + 1] = string.match(entries[i][1], '^(%d+)')
        reply[#reply + 1] = entries[i][2][2]
    end
    return reply
end

--[[
  room_stats: live totals. Writes nothing.

  keys  [1] meta [2] present [3] viewers [4] entries
  reply {} when there is no room, else {online, peak, viewers, likes, comments, entry, viewers, entry, viewers …}
  cost  O(entries)
  tests tests/lua/test_rooms.py
]]
local function room_stats(keys, args)
    local m = rc('HMGET', keys[1], 'epoch', 'peak', 'likes', 'comment')
    if not m[1] then
        return {}
    end
    local entries = rc('HGETALL', keys[4])
    local reply = { rc('HLEN', keys[2]), tonumber(m[2]), rc('HLEN', keys[3]), m[3], tonumber(m[4]) }
    for i = 1, #entries do
        reply[#reply + 1] = entries[i]
    end
    return reply
end

--[[
  audit_page: console commands after a place in the trail. Writes nothing.

  keys  [1] meta [2] audit
  args  [1] place, '' from the start [2] how many at most
  reply {} when there is no room, else {'ok', entry, entry …} as stream entries
  cost  O(entries returned)
]]
local function audit_page(keys, args)
    if rc('EXISTS', keys[1]) == 0 then
        return {}
    end
    local from = '-'
    if args[1] ~= '' then
        from = '(' .. args[1]
    end
    local reply = { 'ok' }
    for _, entry in ipairs(rc('XRANGE', keys[2], from, '+', 'COUNT', args[2])) do
        reply[#reply + 1] = entry
    end
    return reply
end

--[[
  index_add, index_page: the rooms of a tenant, in order of id. Its own slot, written before the room is.

  keys  [1] index ZSET, all scores 0
  args  [1] room | [1] room to start after, '' from the start [2] how many at most
  reply {'ok'} | {room, room …}
]]
local function index_add(keys, args)
    rc('ZADD', keys[1], 0, args[1])
    return { 'ok' }
end

local function index_page(keys, args)
    local from = '-'
    if args[1] ~= '' then
        from = '(' .. args[1]
    end
    return rc('ZRANGE', keys[1], from, '+', 'BYLEX', 'LIMIT', 0, args[2])
end

register('room_put', room_put)
register('room_step', room_step)
register('room_settle', room_settle)
register('room_read', room_read, { 'no-writes' })
register('facts_since', facts_since, { 'no-writes' })
register('room_stats', room_stats, { 'no-writes' })
register('audit_page', audit_page, { 'no-writes' })
register('index_add', index_add)
register('index_page', index_page, { 'no-writes' })
