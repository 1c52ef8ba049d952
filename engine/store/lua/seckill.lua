--[[
  seckill: units of an item on sale for a time, held for a viewer until they are paid.

  A sale is a HASH that only seckill_schedule creates; nothing else brings a missing one to life. Start and end are
  compared with the store's clock here, half-open [starts_at, ends_at), so no timer is needed for correctness;
  seckill_tick only announces and gives holds back early. How units move is ledger.lua's.
  tests tests/lua/test_seckill.py; model: tests/support/campaigns.py
]]

local ledger = shared.ledger
local STATUS, PAY_BY, INVITER, REAP_MAX = ledger.STATUS, ledger.PAY_BY, ledger.INVITER, ledger.REAP_MAX
local split_order, order_json, read_sale, write_sale = ledger.split_order, ledger.order_json, ledger.read_sale, ledger.write_sale
local fenced, sale_body, stock_gauge, mark_item = ledger.fenced, ledger.sale_body, ledger.stock_gauge, ledger.mark_item
local after_change, split_units, units_of, release = ledger.after_change, ledger.split_units, ledger.units_of, ledger.release
local reap = ledger.reap

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
    check_epoch(room)
    rc('HSET', keys[6], 'sale', args[8], 'item', args[9], 'price_cents', args[10], 'stock', args[11], 'left', args[11],
        'held', 0, 'sold', 0, 'taken', 0, 'bought', 0, 'owed', 0, 'per_viewer', args[12], 'starts_at', int(starts_at), 'ends_at', args[14],
        'hold_ms', args[15], 'eligible', args[16], 'gate_tags', args[17], 'gate_level', args[18],
        'gate_dwell_s', args[19], 'gate_first', args[20], 'gate_shared', args[21],
        'line', room.line, 'ended', '0', 'sold_out', '')
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
  reply {'ok', sale} | {'not_found'} | {'ended'} | {'limit_reached', left} | {'bad_quantity'} when the stock, or what it
        is worth in cents, would be more than the wire can carry
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
    if delta > 0 and (sale.stock + delta) * math.max(1, tonumber(sale.price)) > STOCK_MAX then
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
    check_epoch(room)
    sale.line, sale.seen_taken = room.line, false
    rc('HSET', sale.key, 'line', sale.line)
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
        local m = rc('HMGET', keys[i], 'line', 'seen_taken', 'seen_bought')
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
    if waits and not ledger_is_whole(room) then
        -- Written down, or a later restart that loses nothing would hide this one from a room where nothing happens.
        check_epoch(room)
    end
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
            -- A key that was used for another sale is a conflict even where this one does not exist.
            local fingerprint = args[1 + (i - 1) * CLAIM_ARGS + 3]
            replies[i + 1] = room and recall(keys[CLAIM_KEYS + i], fingerprint) or refusal
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

register('seckill_schedule', seckill_schedule)
register('seckill_adjust', seckill_adjust)
register('seckill_end', seckill_end)
register('seckill_distrust', seckill_distrust)
register('seckill_tick', seckill_tick)
register('seckill_claim', seckill_claim)
