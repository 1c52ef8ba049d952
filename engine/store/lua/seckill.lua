--[[
  seckill: units of an item on sale for a time, held for a viewer until they are paid.

  A sale is a HASH that only seckill_schedule creates; nothing else brings a missing one to life. At every moment
  stock == left + held + sold, and each is 0 or more. Start and end are compared with the store's clock here, half-open
  [starts_at, ends_at), so no timer is needed for correctness; seckill_tick only announces and gives holds back early.

  Fence: a sale remembers the replication id it was armed with. After a restart or promotion that the engine does not
  vouch for it answers `paused` until a streamer adjusts it (by 0 if need be), because units sold before may be missing
  from what the store remembers. `taken` and `bought` count the units ever held and ever paid in time; they only rise,
  so what an engine has seen of them tells how many are missing (seckill_distrust). Those leave the stock when the sale
  is armed again; as far as they are not there to leave, they are `owed` by what comes back later.

  An order is one field of the HASH `orders`: its parts joined with '|', which no id may contain.
  tests tests/lua/test_seckill.py; model: tests/support/campaigns.py
]]

-- Parts of an order, in the order they are joined.
local SALE, ITEM, VIEWER, QTY, PRICE, STATUS, HELD_AT, PAY_BY, INVITER, PAYMENT, REFUNDS = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
-- Overdue holds given back by a batch of claims, and again when one of them finds too little left.
local REAP_MAX = 64

local function split_order(packed)
    local parts = {}
    for part in string.gmatch(packed .. '|', '([^|]*)|') do
        parts[#parts + 1] = part
    end
    return parts
end

local function order_json(order, o)
    local json = '{"order":"' .. order .. '","sale":"' .. o[SALE] .. '","item":"' .. o[ITEM] .. '","viewer":"' .. o[VIEWER]
        .. '","qty":' .. o[QTY] .. ',"price_cents":' .. o[PRICE]
        .. ',"amount_cents":' .. int(tonumber(o[PRICE]) * tonumber(o[QTY])) .. ',"status":"' .. o[STATUS]
        .. '","held_at":' .. o[HELD_AT] .. ',"pay_by":' .. o[PAY_BY]
    if o[INVITER] ~= '' then
        json = json .. ',"inviter":"' .. o[INVITER] .. '"'
    end
    if o[PAYMENT] ~= '' then
        json = json .. ',"payment_id":"' .. o[PAYMENT] .. '"'
    end
    if o[REFUNDS] ~= '' then
        json = json .. ',"refund_required":["' .. string.gsub(o[REFUNDS], ',', '","') .. '"]'
    end
    return json .. '}'
end

-- Write an order down, tell the shop through the outbox and the viewer's screens. Every change goes through here.
local function save_order(room, order, o)
    check_epoch(room)
    local json = order_json(order, o)
    local change = rc('HINCRBY', room.meta, 'change', 1)
    rc('HSET', room.orders, order, table.concat(o, '|'))
    rc('XADD', room.outbox, int(change) .. '-0', 'j', json)
    personal(room, o[VIEWER], '{"ev":"you.order",' .. string.sub(json, 2))
    room.change = change
    return json
end

local function read_sale(key)
    local f = rc('HMGET', key, 'stock', 'left', 'held', 'sold', 'per_viewer', 'starts_at', 'ends_at', 'hold_ms',
        'price_cents', 'item', 'replid', 'ended', 'sold_out', 'sale', 'eligible', 'gate_tags', 'gate_level',
        'gate_dwell_s', 'gate_first', 'gate_shared', 'taken', 'bought', 'owed')
    if not f[1] then
        return nil
    end
    return {
        told_stock = tonumber(f[1]), taken = tonumber(f[21]), bought = tonumber(f[22]), owed = tonumber(f[23]),
        key = key, stock = tonumber(f[1]), left = tonumber(f[2]), held = tonumber(f[3]), sold = tonumber(f[4]),
        per_viewer = tonumber(f[5]), starts_at = tonumber(f[6]), ends_at = tonumber(f[7]), hold_ms = tonumber(f[8]),
        price = f[9], item = f[10], replid = f[11], ended = f[12] == '1', sold_out = f[13] or '', id = f[14],
        eligible = f[15] or '', gates = { f[16], f[17], f[18], f[19], f[20] },
    }
end

local function write_sale(sale)
    rc('HSET', sale.key, 'stock', int(sale.stock), 'left', int(sale.left), 'held', int(sale.held),
        'sold', int(sale.sold), 'sold_out', sale.sold_out, 'taken', int(sale.taken), 'bought', int(sale.bought),
        'owed', int(sale.owed))
end

-- A sale that was armed on another line of history waits for a streamer, unless the engine vouches for this one and
-- no engine has seen more of the sale than there is.
local function fenced(room, sale)
    local replid = replication_id(room)
    if sale.replid == replid then
        return false
    end
    return room.vouched ~= replid or rc('HEXISTS', sale.key, 'seen_taken') == 1
end

-- Sold out comes before scheduled: the facts tell when it begins and ends, while the start is told by the clock.
local function sale_state(room, sale)
    if sale.ended or room.now >= sale.ends_at then
        return 'ended'
    end
    if fenced(room, sale) then
        return 'paused'
    end
    if sale.left == 0 then
        return 'sold_out'
    end
    if room.now < sale.starts_at then
        return 'scheduled'
    end
    return 'open'
end

local function sale_body(room, sale)
    local body = '"sale":"' .. sale.id .. '","item":"' .. sale.item .. '","price_cents":' .. sale.price
        .. ',"stock":' .. int(sale.stock) .. ',"per_viewer":' .. int(sale.per_viewer)
        .. ',"starts_at":' .. int(sale.starts_at) .. ',"ends_at":' .. int(sale.ends_at)
        .. ',"hold_s":' .. int(sale.hold_ms / 1000) .. ',"state":"' .. sale_state(room, sale) .. '"'
    if sale.eligible ~= '' then
        body = body .. ',"eligible":' .. sale.eligible
    end
    return body
end

-- The numbers behind the name tell the engine how much this gauge has seen: order changes, units taken and bought.
local function stock_gauge(room, sale)
    local change = room.change or tonumber(rc('HGET', room.meta, 'change') or '') or 0
    rc('SPUBLISH', room.bus, message('g', 'stock:' .. sale.id .. ' ' .. int(change) .. ' ' .. int(sale.taken)
        .. ' ' .. int(sale.bought),
        '{"ev":"stock","sale":"' .. sale.id .. '","left":' .. int(sale.left) .. ',"held":' .. int(sale.held)
        .. ',"sold":' .. int(sale.sold) .. '}'))
end

-- The card on the shelf says so when an item is sold out, and no longer when stock is back.
local function mark_item(room, items, item, sold_out)
    local json = rc('HGET', items, item)
    if not json then
        return
    end
    local from, to = '"sold_out":' .. tostring(not sold_out), '"sold_out":' .. tostring(sold_out)
    local at = string.find(json, from, 1, true)
    if not at then
        return
    end
    json = string.sub(json, 1, at - 1) .. to .. string.sub(json, at + #from)
    rc('HSET', items, item, json)
    fact(room, 'item.put', string.sub(json, 2, -2))
end

-- After any change of units: write them, tell the room what it must know, publish the gauge.
-- sold_out is '' while there is stock, 'pending' while unpaid holds may return, 'final' otherwise.
-- A fenced sale says neither: it is paused, and what it is then is told once it is armed.
local function after_change(room, sale, items)
    local was = sale.sold_out
    if not fenced(room, sale) then
        if sale.left > 0 then
            sale.sold_out = ''
        elseif sale.held > 0 then
            sale.sold_out = 'pending'
        else
            sale.sold_out = 'final'
        end
    end
    write_sale(sale)
    if sale.stock ~= sale.told_stock and not sale.ended then
        sale.told_stock = sale.stock
        fact(room, 'seckill.adjusted', sale_body(room, sale))
    end
    if sale.sold_out ~= was then
        if sale.sold_out == '' then
            fact(room, 'seckill.back', '"sale":"' .. sale.id .. '"')
            mark_item(room, items, sale.item, false)
        else
            fact(room, 'seckill.sold_out',
                '"sale":"' .. sale.id .. '","final":' .. tostring(sale.sold_out == 'final'))
            if was == '' then
                mark_item(room, items, sale.item, true)
            end
        end
    end
    stock_gauge(room, sale)
end

-- What a viewer holds or bought of a sale counts against their limit: "units|order".
local function split_units(had)
    if not had then
        return 0, nil
    end
    local units, order = string.match(had, '^(%d+)|(.*)$')
    return tonumber(units), order
end

local function units_of(buyers, viewer)
    return split_units(rc('HGET', buyers, viewer))
end

local function add_units(buyers, viewer, delta, order)
    local units, last = units_of(buyers, viewer)
    units = units + delta
    if units <= 0 then
        rc('HDEL', buyers, viewer)
    else
        rc('HSET', buyers, viewer, int(units) .. '|' .. (order or last or ''))
    end
end

local function count(room, from, to)
    if from then
        rc('HINCRBY', room.meta, 'orders_' .. from, -1)
    end
    rc('HINCRBY', room.meta, 'orders_' .. to, 1)
end

-- Units come back. Those that are owed to a lost line of history leave the stock instead.
local function give_back(sale, qty)
    local kept = math.min(sale.owed, qty)
    sale.owed = sale.owed - kept
    sale.stock = sale.stock - kept
    sale.left = sale.left + qty - kept
end

-- Take a held order back: once, because the order leaves `held` with it.
local function release(room, sale, buyers, holds, order, o, status)
    o[STATUS] = status
    sale.held = sale.held - tonumber(o[QTY])
    give_back(sale, tonumber(o[QTY]))
    add_units(buyers, o[VIEWER], -tonumber(o[QTY]))
    rc('ZREM', holds, order)
    count(room, 'held', status)
    return save_order(room, order, o)
end

local function reap(room, sale, buyers, holds, most)
    local overdue = rc('ZRANGEBYSCORE', holds, '-inf', int(room.now), 'LIMIT', 0, most)
    for _, order in ipairs(overdue) do
        local packed = rc('HGET', room.orders, order)
        local o = packed and split_order(packed)
        if o and o[STATUS] == 'held' then
            release(room, sale, buyers, holds, order, o, 'expired')
        else
            rc('ZREM', holds, order)
        end
    end
    return #overdue
end

--[[
  seckill_schedule: put units of an item on sale. A start in the past means now.

  keys  console, [6] sale HASH [7] sales SET [8] items HASH
  args  console, [8] sale [9] item [10] price_cents [11] stock [12] per_viewer [13] starts_at [14] ends_at [15] hold_ms
        [16] eligible as JSON or '' [17] gate_tags [18] gate_level [19] gate_dwell_s [20] gate_first [21] gate_shared
  reply {'ok', sale} | {'conflict'} when the id is taken | {'not_found'} when the item is not on the shelf
        | {'bad_command'} when it would end before it starts
  cost  O(1)
]]
local function seckill_schedule(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    if rc('EXISTS', keys[6]) == 1 then
        return refuse('conflict')
    end
    if rc('HEXISTS', keys[8], args[9]) == 0 then
        return refuse('not_found')
    end
    local starts_at = math.max(tonumber(args[13]), room.now)
    if tonumber(args[14]) <= starts_at then
        return refuse('bad_command')
    end
    rc('HSET', keys[6], 'sale', args[8], 'item', args[9], 'price_cents', args[10], 'stock', args[11], 'left', args[11],
        'held', 0, 'sold', 0, 'taken', 0, 'bought', 0, 'owed', 0, 'per_viewer', args[12], 'starts_at', int(starts_at), 'ends_at', args[14],
        'hold_ms', args[15], 'eligible', args[16], 'gate_tags', args[17], 'gate_level', args[18],
        'gate_dwell_s', args[19], 'gate_first', args[20], 'gate_shared', args[21],
        'replid', replication_id(room), 'ended', '0', 'sold_out', '')
    rc('SADD', keys[7], args[8])
    local sale = read_sale(keys[6])
    local body = sale_body(room, sale)
    fact(room, 'seckill.scheduled', body)
    -- An earlier sale may have sold the item out.
    mark_item(room, keys[8], sale.item, false)
    stock_gauge(room, sale)
    return finish(room, '{' .. body .. '}', 'null')
end

--[[
  seckill_adjust: add units, or take unheld ones away. Arms a fenced sale again: what engines have seen taken and bought
  and the store does not hold leaves the stock; the shop knows those orders.

  keys  console, [6] sale HASH [7] items HASH
  args  console, [8] delta
  reply {'ok', sale} | {'not_found'} | {'ended'} | {'limit_reached', left} | {'bad_quantity'} when the stock would be
        more than the wire can carry
  cost  O(1)
]]
local STOCK_MAX = 9007199254740991

local function seckill_adjust(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    local sale = read_sale(keys[6])
    if not sale then
        return refuse('not_found')
    end
    if sale.ended or room.now >= sale.ends_at then
        return refuse('ended')
    end
    local taken, bought = 0, 0
    if fenced(room, sale) then
        local seen = rc('HMGET', sale.key, 'seen_taken', 'seen_bought')
        taken = math.max(0, (tonumber(seen[1] or '') or 0) - sale.taken)
        bought = math.max(0, (tonumber(seen[2] or '') or 0) - sale.bought)
    end
    local delta = tonumber(args[8])
    local left = sale.left - taken
    if delta < 0 and left + delta < 0 then
        return refuse('limit_reached', '"left":' .. int(math.max(0, left)))
    end
    if sale.stock + delta > STOCK_MAX then
        return refuse('bad_quantity')
    end
    local before = '{"stock":' .. int(sale.stock) .. ',"left":' .. int(sale.left) .. '}'
    sale.taken, sale.bought, sale.owed = sale.taken + taken, sale.bought + bought, sale.owed + bought
    sale.left = left + delta
    if sale.left < 0 then
        sale.owed, sale.left = sale.owed - sale.left, 0
    end
    sale.stock = sale.left + sale.held + sale.sold
    sale.told_stock = sale.stock
    sale.replid = replication_id(room)
    rc('HSET', sale.key, 'replid', sale.replid)
    rc('HDEL', sale.key, 'seen_taken', 'seen_bought')
    write_sale(sale)
    local body = sale_body(room, sale)
    fact(room, 'seckill.adjusted', body)
    after_change(room, sale, keys[7])
    return finish(room, '{' .. body .. '}', before)
end

--[[
  seckill_distrust: an engine has seen more of this room than the store holds, or cannot tell. The room goes on in
  another epoch, and sales that were armed before wait for a streamer. Doing it twice is harmless.

  keys  [1] meta [2] log [3] bus, then every sale HASH
  args  then for each sale: units taken and units bought as far as the engine has seen, 0 when it has not
  reply {'ok'} | {'room_not_found'}
  cost  O(sales)
]]
local function seckill_distrust(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], '')
    if not room then
        return refuse('room_not_found')
    end
    local replid = replication_id(room)
    if rc('HGET', room.meta, 'distrusted') ~= replid then
        -- Also when somebody who knew less has vouched for this line meanwhile.
        if room.replid == replid then
            room.replid = 'lost'
        end
        check_epoch(room)
        rc('HSET', room.meta, 'distrusted', replid)
    end
    for i = 4, #keys do
        local m = rc('HMGET', keys[i], 'replid', 'seen_taken', 'seen_bought')
        if m[1] and m[1] ~= replid then
            local taken, bought = tonumber(args[2 * i - 7]), tonumber(args[2 * i - 6])
            rc('HSET', keys[i], 'seen_taken', int(math.max(taken, tonumber(m[2] or '') or 0)),
                'seen_bought', int(math.max(bought, tonumber(m[3] or '') or 0)))
        end
    end
    return { 'ok' }
end

local function end_sale(room, sale)
    sale.ended = true
    rc('HSET', sale.key, 'ended', '1')
    local body = sale_body(room, sale)
    fact(room, 'seckill.ended', body)
    return body
end

--[[
  seckill_end: no new holds from now on; those there are live on.

  keys  console, [6] sale HASH
  args  console
  reply {'ok', sale} | {'not_found'}; ending an ended sale changes nothing
  cost  O(1)
]]
local function seckill_end(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    local sale = read_sale(keys[6])
    if not sale then
        return refuse('not_found')
    end
    local body
    if sale.ended then
        body = sale_body(room, sale)
    else
        body = end_sale(room, sale)
    end
    return finish(room, '{' .. body .. '}', 'null')
end

--[[
  seckill_tick: give overdue holds back and announce the end, also when the room is over. Doing it twice is harmless.

  keys  [1] meta [2] log [3] bus [4] sale HASH [5] buyers HASH [6] holds ZSET [7] orders HASH [8] outbox STREAM
        [9] items HASH
  args  [1] vouched replication id
  reply {'again', milliseconds until the next look} | {'done'} | {'not_found'}
  cost  O(500)
]]
local FENCED_LOOK_MS = 1000

local function seckill_tick(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    local sale = room and read_sale(keys[4])
    if not sale then
        return { 'not_found' }
    end
    room.orders, room.outbox = keys[7], keys[8]
    local over = sale.ended or room.now >= sale.ends_at or OVER[room.state]
    -- What a fenced sale would give back now may have been paid on the lost line of history, and be sold again.
    local waits = fenced(room, sale) and not over
    if not waits and reap(room, sale, keys[5], keys[6], 500) > 0 then
        after_change(room, sale, keys[9])
    end
    if over and not sale.ended then
        end_sale(room, sale)
    end
    if waits then
        return { 'again', int(math.min(FENCED_LOOK_MS, math.max(1, sale.ends_at - room.now))) }
    end
    local next = rc('ZRANGE', keys[6], 0, 0, 'WITHSCORES')
    local wait = -1
    if next[2] then
        wait = math.max(1, tonumber(next[2]) - room.now)
    end
    if not sale.ended then
        local until_end = math.max(1, sale.ends_at - room.now)
        -- A hold made after this look ends no sooner than this.
        local until_hold = math.max(sale.hold_ms, sale.starts_at + sale.hold_ms - room.now)
        local soonest = math.min(until_end, until_hold)
        wait = wait < 0 and soonest or math.min(wait, soonest)
    end
    if wait < 0 then
        return { 'done' }
    end
    return { 'again', int(wait) }
end

--[[
  seckill_claim: hold units for a batch of viewers, in order.

  What all claims need is read at the start, and what they change is written together, because a call costs more than
  what it does: every write is also copied for the append-only file.

  keys  [1] meta [2] log [3] bus [4] sale HASH [5] buyers HASH [6] holds ZSET [7] orders HASH [8] outbox STREAM
        [9] items HASH [10] viewer_orders HASH [11] inviters HASH [12] viewers HASH [13] invited HASH [14] bans HASH,
        then one idempotency key a claim
  args  [1] vouched replication id, then for each claim, at most 500
        viewer, qty, fingerprint, level, tags with a comma at both ends
  reply {{now, change, taken}, reply, reply …}: {'ok', units held} | {'room_not_found'} | {'room_not_live'}
        | {'not_found'} | {'paused'} | {'not_started', starts_at, now} | {'ended'} | {'not_eligible'}
        | {'limit_reached', left} | {'sold_out', final, left} | {'conflict'} | {'forbidden'}
  invariants  stock == left + held + sold; units of a viewer <= per_viewer; one order per key; where one unit per viewer
        is the limit, another key returns the first order with `again`, also when the sale is over
  cost  15 calls a batch, 2 a hold
]]
local CLAIM_KEYS, CLAIM_ARGS = 14, 5
-- A viewer's list of orders is cut down to the open ones when it grows beyond this.
local MINE_BYTES_MAX = 1024

local function still_held(room, mine)
    local kept = {}
    for order in string.gmatch(mine, '[^,]+') do
        if split_order(rc('HGET', room.orders, order))[STATUS] == 'held' then
            kept[#kept + 1] = order
        end
    end
    return table.concat(kept, ',')
end

-- Write down the holds that a batch has granted since it last did. Reads made before know nothing of them.
local function write_holds(room, granted, keys, kept_ms)
    local n = #granted
    if n == 0 then
        return
    end
    local viewers = {}
    for i = 1, n do
        viewers[i] = granted[i].viewer
    end
    local inviters = rc('HMGET', keys[11], unpack(viewers))
    local orders_before = rc('HMGET', keys[10], unpack(viewers))
    local change = rc('HINCRBY', room.meta, 'change', n) - n
    local units, holds, orders, viewer_orders, lines = {}, {}, {}, {}, {}
    for i = 1, n do
        local hold = granted[i]
        local o, order, viewer = hold.o, hold.order, hold.viewer
        o[INVITER] = inviters[i] or ''
        local json = order_json(order, o)
        local before = orders_before[i]
        local at = 2 * i - 1
        units[at], units[at + 1] = viewer, int(hold.units) .. '|' .. order
        holds[at], holds[at + 1] = o[PAY_BY], order
        orders[at], orders[at + 1] = order, table.concat(o, '|')
        if before and #before > MINE_BYTES_MAX then
            before = still_held(room, before)
        end
        viewer_orders[at], viewer_orders[at + 1] = viewer, before and before ~= '' and (before .. ',' .. order) or order
        lines[i] = '{"ev":"you.order",' .. string.sub(json, 2)
        rc('XADD', room.outbox, int(change + i) .. '-0', 'j', json)
        remember(hold.idempotency, hold.fingerprint, hold.reply, kept_ms)
        granted[i] = nil
    end
    rc('HSET', keys[5], unpack(units))
    rc('ZADD', keys[6], unpack(holds))
    rc('HSET', room.orders, unpack(orders))
    rc('HSET', keys[10], unpack(viewer_orders))
    rc('HINCRBY', room.meta, 'orders_held', n)
    rc('HSET', room.meta, 'order', int(room.order))
    room.change = change + n
    personal(room, table.concat(viewers, ' '), table.concat(lines, '\n'))
end

local function seckill_claim(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    local claims = (#args - 1) / CLAIM_ARGS
    local replies = { { '0', '0', '0' } }
    local sale = room and read_sale(keys[4])
    local refusal = nil
    if not room then
        refusal = refuse('room_not_found')
    elseif not sale then
        refusal = refuse('not_found')
    end
    if refusal then
        for i = 1, claims do
            replies[i + 1] = refusal
        end
        return replies
    end
    room.orders, room.outbox = keys[7], keys[8]
    local buyers, holds = keys[5], keys[6]
    if OVER[room.state] or sale.ended or room.now >= sale.ends_at then
        refusal = refuse('ended')
    elseif room.state == 'scheduled' then
        refusal = refuse('room_not_live', '"state":"scheduled"')
    elseif fenced(room, sale) then
        refusal = refuse('paused')
    elseif room.now < sale.starts_at then
        refusal = refuse('not_started', '"starts_at":' .. int(sale.starts_at) .. ',"now":' .. int(room.now))
    end
    -- Holds whose time is up are stock and quota again, whether or not a timer has looked.
    local changed = not refusal and reap(room, sale, buyers, holds, REAP_MAX) > 0
    local viewers = {}
    for i = 1, claims do
        viewers[i] = args[2 + (i - 1) * CLAIM_ARGS]
    end
    local done = rc('MGET', unpack(keys, CLAIM_KEYS + 1, CLAIM_KEYS + claims))
    local banned = rc('HMGET', keys[14], unpack(viewers))
    local bought = rc('HMGET', buyers, unpack(viewers))
    local code, reaped, stale = nil, false, false
    local granted, asked = {}, {}
    local now, pay_by = int(room.now), int(room.now + sale.hold_ms)
    local kept_ms = math.max(KEY_KEPT_MS, sale.ends_at - room.now + sale.hold_ms + KEY_KEPT_MS)
    for i = 1, claims do
        local at = 1 + (i - 1) * CLAIM_ARGS
        local viewer, qty, fingerprint = args[at + 1], tonumber(args[at + 2]), args[at + 3]
        local idempotency = keys[CLAIM_KEYS + i]
        local known, had = done[i], bought[i]
        if asked[viewer] then
            -- What was read at the start knows nothing of this viewer's earlier claim.
            write_holds(room, granted, keys, kept_ms)
            known, had = rc('GET', idempotency), rc('HGET', buyers, viewer)
        elseif stale then
            had = rc('HGET', buyers, viewer)
        end
        asked[viewer] = true
        local reply = recalled(known, fingerprint)
        local units, last = split_units(had)
        if not reply and last and qty == 1 and sale.per_viewer == 1 then
            local o = split_order(rc('HGET', room.orders, last))
            if o[STATUS] ~= 'held' or room.now < tonumber(o[PAY_BY]) then
                reply = { 'ok', '{"order":"' .. last .. '","status":"' .. o[STATUS] .. '","pay_by":' .. o[PAY_BY]
                    .. ',"stock_left":' .. int(sale.left) .. ',"again":true}' }
            elseif not refusal then
                write_holds(room, granted, keys, kept_ms)
                release(room, sale, buyers, holds, last, o, 'expired')
                changed, units = true, 0
            end
        end
        reply = reply or refusal
        if not reply and banned[i] then
            reply = refuse('forbidden')
        end
        if not reply and units + qty > sale.per_viewer then
            reply = refuse('limit_reached', '"left":' .. int(math.max(0, sale.per_viewer - units)))
        end
        if not reply then
            local who = { viewer = viewer, level = tonumber(args[at + 4]), tags = args[at + 5] }
            if not eligible(room, sale.gates, who, keys[12], keys[10], keys[13]) then
                reply = refuse('not_eligible')
            end
        end
        if not reply and sale.left < qty and not reaped then
            -- Holds whose time is up are stock: give them back before saying that there is none.
            reaped = true
            write_holds(room, granted, keys, kept_ms)
            if reap(room, sale, buyers, holds, REAP_MAX) > 0 then
                changed, stale = true, true
                units = units_of(buyers, viewer)
            end
        end
        if not reply and sale.left < qty then
            reply = refuse('sold_out', '"final":' .. tostring(sale.left == 0 and sale.held == 0) .. ',"left":'
                .. int(sale.left))
        end
        if not reply then
            code = code or rc('HGET', room.meta, 'code')
            room.order = (room.order or tonumber(rc('HGET', room.meta, 'order') or '') or 0) + 1
            local order = code .. '-' .. int(room.order)
            sale.left = sale.left - qty
            sale.held = sale.held + qty
            sale.taken = sale.taken + qty
            local json = '{"order":"' .. order .. '","status":"held","pay_by":' .. pay_by .. ',"stock_left":'
                .. int(sale.left) .. '}'
            granted[#granted + 1] = {
                order = order, viewer = viewer, units = units + qty, idempotency = idempotency,
                fingerprint = fingerprint, reply = json,
                o = { sale.id, sale.item, viewer, int(qty), sale.price, 'held', now, pay_by, '', '', '' },
            }
            changed = true
            reply = { 'ok', json }
        end
        replies[i + 1] = reply
    end
    write_holds(room, granted, keys, kept_ms)
    if changed then
        after_change(room, sale, keys[9])
    end
    local change = room.change or tonumber(rc('HGET', room.meta, 'change') or '') or 0
    replies[1] = { int(room.now), int(change), int(sale.taken) }
    return replies
end

--[[
  order_read: one order. Writes nothing.

  keys  [1] meta [2] orders HASH
  args  [1] order
  reply {'ok', order, sale, viewer} | {'not_found'} | {'room_not_found'}
]]
local function order_read(keys, args)
    if rc('EXISTS', keys[1]) == 0 then
        return refuse('room_not_found')
    end
    local packed = rc('HGET', keys[2], args[1])
    if not packed then
        return refuse('not_found')
    end
    local o = split_order(packed)
    return { 'ok', order_json(args[1], o), o[SALE], o[VIEWER] }
end

-- Keys of the functions that move one order.
local function open_order(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room then
        return nil, refuse('room_not_found')
    end
    room.orders, room.outbox = keys[7], keys[8]
    local packed = rc('HGET', keys[7], args[2])
    local sale = read_sale(keys[4])
    if not packed or not sale then
        return nil, refuse('not_found')
    end
    return room, nil, sale, split_order(packed)
end

--[[
  order_cancel: a viewer gives held units back.

  keys  [1] meta [2] log [3] bus [4] sale HASH [5] buyers HASH [6] holds ZSET [7] orders HASH [8] outbox STREAM
        [9] items HASH [10] idempotency
  args  [1] vouched replication id [2] order [3] viewer [4] fingerprint
  reply {'ok', order} | {'not_found'} also when it is somebody else's | {'conflict', status} when paid or refunded
  cost  O(1)
]]
local function order_cancel(keys, args)
    local room, reply, sale, o = open_order(keys, args)
    if not room then
        return reply
    end
    local done = recall(keys[10], args[4])
    if done then
        return done
    end
    if o[VIEWER] ~= args[3] then
        return refuse('not_found')
    end
    if o[STATUS] == 'cancelled' or o[STATUS] == 'expired' then
        return { 'ok', order_json(args[2], o) }
    end
    if o[STATUS] ~= 'held' then
        return refuse('conflict', '"status":"' .. o[STATUS] .. '"')
    end
    local json
    if room.now >= tonumber(o[PAY_BY]) then
        json = release(room, sale, keys[5], keys[6], args[2], o, 'expired')
    else
        json = release(room, sale, keys[5], keys[6], args[2], o, 'cancelled')
    end
    after_change(room, sale, keys[9])
    remember(keys[10], args[4], json)
    return { 'ok', json }
end

local function owes(o, payment)
    return string.find(',' .. o[REFUNDS] .. ',', ',' .. payment .. ',', 1, true) ~= nil
end

--[[
  order_paid: the shop says that an order was paid. Idempotent by payment id.

  A hold becomes a sale. Late, stock is taken again if there is any and the viewer's limit allows it; else, as for a
  second payment id, the payment is recorded once as one to give back.

  keys  [1] meta [2] log [3] bus [4] sale HASH [5] buyers HASH [6] holds ZSET [7] orders HASH [8] outbox STREAM
        [9] items HASH [10] payments HASH
  args  [1] vouched replication id [2] order [3] payment id [4] amount in cents
  reply {'ok', order} | {'refund', order} | {'conflict'} for a wrong amount or a payment id of another order
        | {'not_found'} | {'room_not_found'}
  cost  O(1)
]]
local function order_paid(keys, args)
    local room, reply, sale, o = open_order(keys, args)
    if not room then
        return reply
    end
    local order, payment = args[2], args[3]
    local known = rc('HGET', keys[10], payment)
    if known and known ~= order then
        return refuse('conflict')
    end
    if tonumber(args[4]) ~= tonumber(o[PRICE]) * tonumber(o[QTY]) then
        return refuse('conflict', '"amount_cents":' .. int(tonumber(o[PRICE]) * tonumber(o[QTY])))
    end
    if known then
        -- Paid, to give back, or given back meanwhile.
        return { owes(o, payment) and 'refund' or 'ok', order_json(order, o) }
    end
    local qty = tonumber(o[QTY])
    local was = o[STATUS]
    local late = (was == 'cancelled' or was == 'expired') and not fenced(room, sale)
        and units_of(keys[5], o[VIEWER]) + qty <= sale.per_viewer
    if late and sale.left < qty then
        if reap(room, sale, keys[5], keys[6], REAP_MAX) > 0 then
            after_change(room, sale, keys[9])
        end
        late = sale.left >= qty
    end
    rc('HSET', keys[10], payment, order)
    if was ~= 'held' and not late then
        o[REFUNDS] = o[REFUNDS] == '' and payment or (o[REFUNDS] .. ',' .. payment)
        return { 'refund', save_order(room, order, o) }
    end
    if was == 'held' then
        sale.held = sale.held - qty
        sale.bought = sale.bought + qty
    else
        sale.left = sale.left - qty
        sale.taken = sale.taken + qty
        add_units(keys[5], o[VIEWER], qty, order)
    end
    sale.sold = sale.sold + qty
    rc('ZREM', keys[6], order)
    count(room, was, 'paid')
    rc('HINCRBY', room.meta, 'sold_cents', args[4])
    o[STATUS], o[PAYMENT] = 'paid', payment
    local json = save_order(room, order, o)
    after_change(room, sale, keys[9])
    return { 'ok', json }
end

--[[
  order_refunded: the shop gave a payment back. Idempotent by payment id.

  With restock the units are on sale again; without it they leave the stock, so that stock == left + held + sold. A
  payment that was recorded as one to give back is struck off the list and moves no units.

  keys  as order_paid
  args  [1] vouched replication id [2] order [3] payment id [4] '1' to restock
  reply {'ok', order} | {'conflict'} when this payment did not pay this order | {'not_found'} | {'room_not_found'}
  cost  O(1)
]]
local function order_refunded(keys, args)
    local room, reply, sale, o = open_order(keys, args)
    if not room then
        return reply
    end
    local order, payment = args[2], args[3]
    if rc('HGET', keys[10], payment) ~= order then
        return refuse('conflict')
    end
    if o[PAYMENT] ~= payment then
        local kept = {}
        for had in string.gmatch(o[REFUNDS], '[^,]+') do
            if had ~= payment then
                kept[#kept + 1] = had
            end
        end
        local rest = table.concat(kept, ',')
        if rest == o[REFUNDS] then
            return { 'ok', order_json(order, o) }
        end
        o[REFUNDS] = rest
        return { 'ok', save_order(room, order, o) }
    end
    if o[STATUS] == 'refunded' then
        return { 'ok', order_json(order, o) }
    end
    local qty = tonumber(o[QTY])
    sale.sold = sale.sold - qty
    if args[4] == '1' then
        give_back(sale, qty)
    else
        sale.stock = sale.stock - qty
    end
    count(room, 'paid', 'refunded')
    -- Not -price: minus zero has a sign, which HINCRBY does not take.
    rc('HINCRBY', room.meta, 'sold_cents', int(0 - tonumber(o[PRICE]) * qty))
    o[STATUS] = 'refunded'
    local json = save_order(room, order, o)
    after_change(room, sale, keys[9])
    return { 'ok', json }
end

--[[
  orders_page: order changes after a place, oldest first. Writes nothing.

  keys  [1] meta [2] outbox STREAM
  args  [1] change [2] how many at most
  reply {} when there is no room, else {last change of the room, change, order, change, order …}
]]
local function orders_page(keys, args)
    if rc('EXISTS', keys[1]) == 0 then
        return {}
    end
    local reply = { rc('HGET', keys[1], 'change') or '0' }
    for _, entry in ipairs(rc('XRANGE', keys[2], int(tonumber(args[1]) + 1) .. '-0', '+', 'COUNT', args[2])) do
        reply[#reply + 1] = string.match(entry[1], '^(%d+)')
        reply[#reply + 1] = entry[2][2]
    end
    return reply
end

-- The open orders of one viewer, as a JSON array.
local function open_orders(viewer_orders, orders, viewer)
    local held = {}
    local mine = rc('HGET', viewer_orders, viewer)
    if mine then
        for order in string.gmatch(mine, '[^,]+') do
            local o = split_order(rc('HGET', orders, order))
            if o[STATUS] == 'held' then
                held[#held + 1] = order_json(order, o)
            end
        end
    end
    return '[' .. table.concat(held, ',') .. ']'
end

register('seckill_schedule', seckill_schedule)
register('seckill_adjust', seckill_adjust)
register('seckill_end', seckill_end)
register('seckill_distrust', seckill_distrust)
register('seckill_tick', seckill_tick)
register('seckill_claim', seckill_claim)
register('order_read', order_read, { 'no-writes' })
register('order_cancel', order_cancel)
register('order_paid', order_paid)
register('order_refunded', order_refunded)
register('orders_page', orders_page, { 'no-writes' })
shared.read_sale = read_sale
shared.sale_body = sale_body
shared.open_orders = open_orders
