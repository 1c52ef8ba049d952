--[[
  rooms: life of a room, and reading it.

  A room is created by room_put only. Its state moves by room_step; which steps exist is the table in
  engine/rooms/lifecycle.py, which passes the states a step may start from.
]]

--[[
  room_put: create a room or change its description.

  keys  [1] meta [2] log [3] bus
  args  [1] vouched replication id [2] epoch for a new room [3] body: title, cover, playback, starts_at as the inside of a JSON
        object [4] slow mode between comments of one viewer, milliseconds [5] how long facts are kept, milliseconds
        [6] the code that starts the ids of its orders [7] minimum dwell of a shared arrival, milliseconds
  reply {'created' | 'updated' | 'unchanged' | 'room_not_live'}
  cost  O(1)
  tests tests/lua/test_rooms.py
]]
local function room_put(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room then
        local now = int(now_ms())
        rc('HSET', keys[1], 'epoch', args[2], 'seq', 0, 'state', 'scheduled', 'created', now, 'body', args[3],
            'slow_ms', args[4], 'facts_kept_ms', args[5], 'code', args[6], 'dwell_ms', args[7], 'likes', 0, 'peak', 0,
            'comment', 0, 'notice_version', 0, 'change', 0, 'order', 0)
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

local function equal_sets(have, given, first, count)
    if #have ~= count then
        return false
    end
    local known = {}
    for i = first, first + count - 1 do
        known[given[i]] = true
    end
    for _, id in ipairs(have) do
        if not known[id] then
            return false
        end
    end
    return true
end

--[[
  room_settle: leave `closing` once nothing is open any more. Doing it twice is harmless.

  keys  [1] meta [2] log [3] bus [4] sales SET [5] packets SET, then every sale HASH, then every packet HASH
  args  [1] vouched replication id [2] number of sales, then sale ids, then packet ids, in the order of their keys
  reply {'closed' | 'open' | 'stale' | 'not_closing' | 'room_not_found'}; stale: the ids are not those of the room
  cost  O(sales + packets)
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
    local sales = tonumber(args[2])
    local packets = #args - 2 - sales
    if not equal_sets(rc('SMEMBERS', keys[4]), args, 3, sales)
        or not equal_sets(rc('SMEMBERS', keys[5]), args, 3 + sales, packets) then
        return { 'stale' }
    end
    for i = 1, sales do
        local sale = shared.ledger.read_sale(keys[5 + i])
        if sale.held > 0 or not sale.ended then
            return { 'open' }
        end
    end
    for i = 1, packets do
        if rc('HGET', keys[5 + sales + i], 'closed') ~= '1' then
            return { 'open' }
        end
    end
    step_room(room, 'closed', '')
    return { 'closed' }
end

--[[
  campaigns_list: ids of the sales and packets of a room. Writes nothing.

  keys  [1] sales SET [2] packets SET
  args  none
  reply {{sale, …}, {packet, …}}
  cost  O(sales + packets)
]]
local function campaigns_list(keys, args)
    return { rc('SMEMBERS', keys[1]), rc('SMEMBERS', keys[2]) }
end

--[[
  room_read: everything a snapshot needs, at one moment. Writes nothing.

  keys  [1] meta [2] log [3] bus [4] items [5] shelf [6] comments [7] present [8] sales SET [9] packets SET [10] board
        [11] names, then every sale HASH, then every packet HASH
  args  [1] vouched replication id [2] comments wanted [3] recent facts wanted [4] number of sales, then sale ids, then
        packet ids, in the order of their keys
  reply {} when there is no room; {'stale'} when the ids are not those of the room; else {now, meta fields and values,
        items in shelf order, recent comments oldest first as number, JSON …, recent facts as seq, JSON …, viewers
        online, sales as JSON, ended, stock, left, held, sold, taken, bought …, packets as JSON, closed, total, granted, refunded, shares, grabbed …,
        top of the board as JSON}
  cost  O(items + comments + facts + sales + packets)
  tests tests/lua/test_rooms.py
]]
local function room_read(keys, args)
    local meta = rc('HGETALL', keys[1])
    if #meta == 0 then
        return {}
    end
    local sales = tonumber(args[4])
    local packets = #args - 4 - sales
    if not equal_sets(rc('SMEMBERS', keys[8]), args, 5, sales)
        or not equal_sets(rc('SMEMBERS', keys[9]), args, 5 + sales, packets) then
        return { 'stale' }
    end
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    local items = {}
    local ids = rc('ZRANGE', keys[5], 0, -1)
    if #ids > 0 then
        items = rc('HMGET', keys[4], unpack(ids))
    end
    local comments = {}
    local recent = rc('XREVRANGE', keys[6], '+', '-', 'COUNT', args[2])
    for i = #recent, 1, -1 do
        comments[#comments + 1] = string.match(recent[i][1], '^(%d+)')
        comments[#comments + 1] = recent[i][2][2]
    end
    local facts = {}
    local last = rc('XREVRANGE', keys[2], '+', '-', 'COUNT', args[3])
    for i = #last, 1, -1 do
        facts[#facts + 1] = string.match(last[i][1], '^(%d+)')
        facts[#facts + 1] = last[i][2][2]
    end
    local sold, granted = {}, {}
    for i = 1, sales do
        local sale = shared.ledger.read_sale(keys[11 + i])
        sold[#sold + 1] = '{' .. shared.ledger.sale_body(room, sale) .. '}'
        sold[#sold + 1] = sale.ended and '1' or '0'
        for _, units in ipairs({ sale.stock, sale.left, sale.held, sale.sold, sale.taken, sale.bought }) do
            sold[#sold + 1] = int(units)
        end
    end
    for i = 1, packets do
        local packet = shared.read_packet(keys[11 + sales + i])
        granted[#granted + 1] = '{' .. shared.packet_body(room, packet) .. '}'
        granted[#granted + 1] = packet.closed and '1' or '0'
        for _, part in ipairs({ packet.total, packet.granted, packet.refunded, packet.shares, packet.grabbed }) do
            granted[#granted + 1] = int(part)
        end
    end
    return {
        int(room.now), meta, items, comments, facts, rc('HLEN', keys[7]), sold, granted,
        shared.board_json(keys[10], keys[11]),
    }
end

-- Workers whose lease ran out and whose viewers still count: the caller purges them and asks again. Nobody else might,
-- when the last worker that held the room died.
local LAPSED_SHOWN = 16

local function lapsed_workers(leases)
    return rc('ZRANGEBYSCORE', leases, '-inf', int(now_ms()), 'LIMIT', 0, LAPSED_SHOWN)
end

--[[
  room_brief: what a list of rooms shows. Writes nothing.

  keys  [1] meta [2] present [3] leases
  args  none
  reply {} when there is no room, else {state, body, viewers online, {worker whose lease ran out, …}}
  cost  O(1)
]]
local function room_brief(keys, args)
    local m = rc('HMGET', keys[1], 'state', 'body')
    if not m[1] then
        return {}
    end
    return { m[1], m[2], rc('HLEN', keys[2]), lapsed_workers(keys[3]) }
end

--[[
  room_position: how far a room is. Writes nothing.

  keys  [1] meta [2] outbox
  args  none
  reply {} when there is no room, else {epoch, seq, last order change}
]]
local function room_position(keys, args)
    local m = rc('HMGET', keys[1], 'epoch', 'seq', 'change')
    if not m[1] then
        return {}
    end
    return { m[1], m[2], m[3] or '0' }
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

  keys  [1] meta [2] present [3] viewers [4] entries [5] leases
  args  none
  reply {} when there is no room, else {online, peak, viewers, likes, comments, shares, orders held, paid, cancelled,
        expired, refunded, sold_cents, {worker whose lease ran out, …}, entry, viewers, entry, viewers …}
  cost  O(entries)
  tests tests/lua/test_rooms.py
]]
local function room_stats(keys, args)
    local m = rc('HMGET', keys[1], 'epoch', 'peak', 'likes', 'comment', 'shares', 'orders_held', 'orders_paid',
        'orders_cancelled', 'orders_expired', 'orders_refunded', 'sold_cents')
    if not m[1] then
        return {}
    end
    local entries = rc('HGETALL', keys[4])
    local reply = { rc('HLEN', keys[2]), tonumber(m[2]), rc('HLEN', keys[3]), m[3], tonumber(m[4]) }
    for i = 5, 11 do
        reply[#reply + 1] = m[i] or '0'
    end
    reply[#reply + 1] = lapsed_workers(keys[5])
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
  index_add, index_page, code_room: the rooms of a tenant, in order of id, and the codes that start the ids of their
  orders. Their own slot, written before the room is.

  keys  [1] index ZSET, all scores 0 [2] codes HASH: `c:<code>` → room, `r:<room>` → code
        | [1] index | [1] codes
  args  [1] room [2] code for a new room | [1] room to start after, '' from the start [2] how many at most | [1] code
  reply {'ok', code} | {room, room …} | {'ok', room} or {'not_found'}
]]
local function index_add(keys, args)
    rc('ZADD', keys[1], 0, args[1])
    local code = rc('HGET', keys[2], 'r:' .. args[1])
    if not code then
        code = args[2]
        rc('HSET', keys[2], 'r:' .. args[1], code, 'c:' .. code, args[1])
    end
    return { 'ok', code }
end

local function code_room(keys, args)
    local room = rc('HGET', keys[1], 'c:' .. args[1])
    if not room then
        return refuse('not_found')
    end
    return { 'ok', room }
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
register('campaigns_list', campaigns_list, { 'no-writes' })
register('room_read', room_read, { 'no-writes' })
register('facts_since', facts_since, { 'no-writes' })
register('room_stats', room_stats, { 'no-writes' })
register('audit_page', audit_page, { 'no-writes' })
register('index_add', index_add)
register('index_page', index_page, { 'no-writes' })
register('code_room', code_room, { 'no-writes' })
register('room_brief', room_brief, { 'no-writes' })
register('room_position', room_position, { 'no-writes' })
