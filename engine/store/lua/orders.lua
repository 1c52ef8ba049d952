--[[
  orders: from a hold to paid, cancelled, expired or refunded, and the outbox the shop reads.

  Cancelling, expiring and refunding each give units back exactly once, because the order leaves its status with them.
  Paying is idempotent by payment id. How units move is ledger.lua's.
  tests tests/lua/test_seckill.py; model: tests/support/campaigns.py
]]

local ledger = shared.ledger
local SALE, VIEWER, QTY, PRICE = ledger.SALE, ledger.VIEWER, ledger.QTY, ledger.PRICE
local STATUS, PAY_BY, PAYMENT, REFUNDS = ledger.STATUS, ledger.PAY_BY, ledger.PAYMENT, ledger.REFUNDS
local REAP_MAX = ledger.REAP_MAX
local split_order, order_json, save_order, read_sale = ledger.split_order, ledger.order_json, ledger.save_order, ledger.read_sale
local fenced, after_change, units_of, add_units = ledger.fenced, ledger.after_change, ledger.units_of, ledger.add_units
local count, give_back, release, reap = ledger.count, ledger.give_back, ledger.release, ledger.reap

--[[
  order_read: one order. Writes nothing. With an idempotency key, what was answered under it comes first.

  keys  [1] meta [2] orders HASH, or also [3] idempotency
  args  [1] order, or also [2] fingerprint
  reply {'ok', order, sale, viewer} | {'ok', the answer under the key} | {'conflict'} | {'not_found'} | {'room_not_found'}
]]
local function order_read(keys, args)
    if rc('EXISTS', keys[1]) == 0 then
        return refuse('room_not_found')
    end
    local done = keys[3] and recall(keys[3], args[2])
    if done then
        return done
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
    local done = recall(keys[10], args[4])
    if done then
        return done
    end
    local room, reply, sale, o = open_order(keys, args)
    if not room then
        return reply
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
    if fenced(room, sale) and not sale.ended and room.now < sale.ends_at then
        -- It may have been paid on the lost line of history; given back now, the unit would be sold a second time.
        return refuse('paused')
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

register('order_read', order_read, { 'no-writes' })
register('order_cancel', order_cancel)
register('order_paid', order_paid)
register('order_refunded', order_refunded)
register('orders_page', orders_page, { 'no-writes' })
shared.open_orders = open_orders
