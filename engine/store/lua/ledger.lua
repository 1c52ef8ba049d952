--[[
  ledger: what a sale and its orders are made of, and the only places that move units.

  At every moment stock == left + held + sold of a sale, and each is 0 or more. Every change of an order goes through
  save_order, which writes it down, tells the shop through the outbox and the viewer's screens. Registers no function:
  seckill.lua and orders.lua do.

  Fence: a sale remembers the line of history it was armed on. After a restart or promotion that the engine does not
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
        'price_cents', 'item', 'line', 'ended', 'sold_out', 'sale', 'eligible', 'gate_tags', 'gate_level',
        'gate_dwell_s', 'gate_first', 'gate_shared', 'taken', 'bought', 'owed',
        'seen_taken')
    if not f[1] then
        return nil
    end
    return {
        told_stock = tonumber(f[1]), taken = tonumber(f[21]), bought = tonumber(f[22]), owed = tonumber(f[23]),
        key = key, stock = tonumber(f[1]), left = tonumber(f[2]), held = tonumber(f[3]), sold = tonumber(f[4]),
        per_viewer = tonumber(f[5]), starts_at = tonumber(f[6]), ends_at = tonumber(f[7]), hold_ms = tonumber(f[8]),
        price = f[9], item = f[10], line = f[11] or '', ended = f[12] == '1', sold_out = f[13] or '', id = f[14],
        eligible = f[15] or '', gates = { f[16], f[17], f[18], f[19], f[20] }, seen_taken = f[24],
    }
end

local function write_sale(sale)
    rc('HSET', sale.key, 'stock', int(sale.stock), 'left', int(sale.left), 'held', int(sale.held),
        'sold', int(sale.sold), 'sold_out', sale.sold_out, 'taken', int(sale.taken), 'bought', int(sale.bought),
        'owed', int(sale.owed))
end

-- A sale that was armed on another line of history waits for a streamer, and so does one of which an engine has seen
-- more than there is.
local function fenced(room, sale)
    return sale.line ~= room.line or sale.seen_taken or not ledger_is_whole(room)
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
    -- Of a sale that is over, nobody can have what came back.
    if sale.sold_out ~= was and not sale.ended then
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

shared.ledger = {
    SALE = SALE,
    ITEM = ITEM,
    VIEWER = VIEWER,
    QTY = QTY,
    PRICE = PRICE,
    STATUS = STATUS,
    HELD_AT = HELD_AT,
    PAY_BY = PAY_BY,
    INVITER = INVITER,
    PAYMENT = PAYMENT,
    REFUNDS = REFUNDS,
    REAP_MAX = REAP_MAX,
    split_order = split_order,
    order_json = order_json,
    save_order = save_order,
    read_sale = read_sale,
    write_sale = write_sale,
    fenced = fenced,
    sale_body = sale_body,
    stock_gauge = stock_gauge,
    mark_item = mark_item,
    after_change = after_change,
    split_units = split_units,
    units_of = units_of,
    add_units = add_units,
    count = count,
    give_back = give_back,
    release = release,
    reap = reap,
}
