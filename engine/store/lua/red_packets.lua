--[[
  red packets: money in shares that were split before it opened, one share a viewer.

  At every moment total == granted + left + refunded, where left is the sum of the list of parts; no share is handed out
  twice because taking it removes it. Opening and expiry are compared with the store's clock here, half-open
  [opens_at, expires_at). A packet settles once: when empty, expired, cancelled, or when its room closes. Granting is
  apart from paying out: the stream `grants` is what a payout reads.
  tests tests/lua/test_red_packets.py; model: tests/support/campaigns.py
]]

local function read_packet(key)
    local f = rc('HMGET', key, 'packet', 'total', 'shares', 'split', 'min', 'opens_at', 'expires_at', 'granted',
        'grabbed', 'refunded', 'closed', 'eligible', 'best', 'best_cents', 'gate_tags', 'gate_level', 'gate_dwell_s',
        'gate_first', 'gate_shared')
    if not f[1] then
        return nil
    end
    return {
        key = key, id = f[1], total = tonumber(f[2]), shares = tonumber(f[3]), split = f[4], min = f[5],
        opens_at = tonumber(f[6]), expires_at = tonumber(f[7]), granted = tonumber(f[8]), grabbed = tonumber(f[9]),
        refunded = tonumber(f[10]), closed = f[11] == '1', eligible = f[12] or '', best = f[13] or '',
        best_cents = tonumber(f[14] or '') or 0, gates = { f[15], f[16], f[17], f[18], f[19] },
    }
end

local function packet_state(room, packet)
    if packet.closed or room.now >= packet.expires_at then
        return 'closed'
    end
    if packet.grabbed == packet.shares then
        return 'empty'
    end
    if room.now < packet.opens_at then
        return 'scheduled'
    end
    return 'open'
end

local function packet_body(room, packet)
    local body = '"packet":"' .. packet.id .. '","total_cents":' .. int(packet.total) .. ',"shares":'
        .. int(packet.shares) .. ',"split":"' .. packet.split .. '","min_cents":' .. packet.min
        .. ',"opens_at":' .. int(packet.opens_at) .. ',"expires_at":' .. int(packet.expires_at)
        .. ',"state":"' .. packet_state(room, packet) .. '"'
    if packet.eligible ~= '' then
        body = body .. ',"eligible":' .. packet.eligible
    end
    return body
end

local function packet_gauge(room, packet)
    gauge(room, 'packet:' .. packet.id, '{"ev":"packet","packet":"' .. packet.id .. '","left":'
        .. int(packet.shares - packet.grabbed) .. ',"grabbed":' .. int(packet.grabbed) .. '}')
end

-- Settle a packet: what was not granted goes back, once. Returns the body of the fact.
local function settle_packet(room, packet, parts, grants)
    packet.refunded = packet.total - packet.granted
    packet.closed = true
    rc('HSET', packet.key, 'refunded', int(packet.refunded), 'closed', '1')
    rc('DEL', parts)
    if packet.refunded > 0 then
        rc('XADD', grants, '*', 'packet', packet.id, 'refund', int(packet.refunded), 'at', int(room.now))
    end
    local body = packet_body(room, packet) .. ',"granted_cents":' .. int(packet.granted) .. ',"refunded_cents":'
        .. int(packet.refunded) .. ',"grabbed":' .. int(packet.grabbed)
    if packet.best ~= '' then
        body = body .. ',"best":' .. packet.best
    end
    fact(room, 'redpacket.closed', body)
    return body
end

--[[
  packet_send: put money into the room, already split.

  keys  console, [6] packet HASH [7] parts LIST [8] packets SET
  args  console, [8] packet [9] total [10] shares [11] split [12] min [13] opens_at or '' [14] expires after, milliseconds
        from the opening [15] eligible as JSON or '' [16]–[20] gates [21] parts in cents, joined with commas
  reply {'ok', packet} | {'conflict'} when the id is taken | {'bad_quantity'} when the parts are not the money
  cost  O(shares)
]]
local function packet_send(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    if rc('EXISTS', keys[6]) == 1 then
        return refuse('conflict')
    end
    local parts, sum, least = {}, 0, tonumber(args[12])
    for part in string.gmatch(args[21], '%d+') do
        local cents = tonumber(part)
        if cents < least then
            return refuse('bad_quantity')
        end
        parts[#parts + 1] = part
        sum = sum + cents
    end
    if sum ~= tonumber(args[9]) or #parts ~= tonumber(args[10]) then
        return refuse('bad_quantity')
    end
    local opens_at = math.max(tonumber(args[13]) or 0, room.now)
    rc('HSET', keys[6], 'packet', args[8], 'total', args[9], 'shares', args[10], 'split', args[11], 'min', args[12],
        'opens_at', int(opens_at), 'expires_at', int(opens_at + tonumber(args[14])), 'granted', 0, 'grabbed', 0,
        'refunded', 0, 'closed', '0', 'eligible', args[15], 'gate_tags', args[16], 'gate_level', args[17],
        'gate_dwell_s', args[18], 'gate_first', args[19], 'gate_shared', args[20])
    for i = 1, #parts, 5000 do
        rc('RPUSH', keys[7], unpack(parts, i, math.min(i + 4999, #parts)))
    end
    rc('SADD', keys[8], args[8])
    local packet = read_packet(keys[6])
    local body = packet_body(room, packet)
    fact(room, 'redpacket.opened', body)
    packet_gauge(room, packet)
    return finish(room, '{' .. body .. '}', 'null')
end

--[[
  packet_cancel: stop grabs and refund what is left. Granted shares stand.

  keys  console, [6] packet HASH [7] parts LIST [8] grants STREAM
  args  console
  reply {'ok', packet} | {'not_found'}; cancelling a settled packet changes nothing
  cost  O(parts left)
]]
local function packet_cancel(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    local packet = read_packet(keys[6])
    if not packet then
        return refuse('not_found')
    end
    if not packet.closed then
        settle_packet(room, packet, keys[7], keys[8])
    end
    return finish(room, '{' .. packet_body(room, packet) .. '}', 'null')
end

--[[
  packet_tick: settle a packet that is expired or whose room is over. Doing it twice is harmless.

  keys  [1] meta [2] log [3] bus [4] packet HASH [5] parts LIST [6] grants STREAM
  args  [1] vouched replication id
  reply {'again', milliseconds until it expires} | {'done'} | {'not_found'}
  cost  O(parts left)
]]
local function packet_tick(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    local packet = room and read_packet(keys[4])
    if not packet then
        return { 'not_found' }
    end
    if packet.closed then
        return { 'done' }
    end
    if room.now < packet.expires_at and not OVER[room.state] then
        return { 'again', int(packet.expires_at - room.now) }
    end
    settle_packet(room, packet, keys[5], keys[6])
    return { 'done' }
end

--[[
  packet_grab: a share each for a batch of viewers, in order.

  keys  [1] meta [2] log [3] bus [4] packet HASH [5] parts LIST [6] grabs HASH [7] grants STREAM [8] viewers HASH
        [9] viewer_orders HASH [10] invited HASH [11] bans HASH [12] viewer_grabs HASH, then one idempotency key a
        grab
  args  [1] vouched replication id, then for each grab
        viewer, fingerprint, level, tags with a comma at both ends, name as JSON, sender as JSON
  reply {now, reply, reply …}: {'ok', {"amount_cents", "again"}} | {'room_not_found'} | {'room_not_live'} | {'not_found'}
        | {'not_started', starts_at, now} | {'ended'} | {'empty'} | {'not_eligible'} | {'conflict'} | {'forbidden'}
  invariants  total == granted + left + refunded; one share a viewer; a repeated grab gets the first amount
  cost  O(1) a grab: 4 reads, 6 writes
]]
local GRAB_KEYS, GRAB_ARGS = 12, 6
-- Grabs shown to the room per batch.
local SHOWN_MAX = 3

local function packet_grab(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    local grabs = (#args - 1) / GRAB_ARGS
    local replies = { '0' }
    local packet = room and read_packet(keys[4])
    local refusal = nil
    if not room then
        refusal = refuse('room_not_found')
    elseif not packet then
        refusal = refuse('not_found')
    end
    if refusal then
        for i = 1, grabs do
            -- A key that was used for another packet is a conflict even where this one does not exist.
            local fingerprint = args[1 + (i - 1) * GRAB_ARGS + 2]
            replies[i + 1] = room and recall(keys[GRAB_KEYS + i], fingerprint) or refusal
        end
        return replies
    end
    replies[1] = int(room.now)
    if packet.grabbed == packet.shares then
        refusal = refuse('empty')
    elseif packet.closed or room.now >= packet.expires_at or OVER[room.state] then
        refusal = refuse('ended')
    elseif room.state == 'scheduled' then
        refusal = refuse('room_not_live', '"state":"scheduled"')
    elseif room.now < packet.opens_at then
        refusal = refuse('not_started', '"starts_at":' .. int(packet.opens_at) .. ',"now":' .. int(room.now))
    end
    local shown, granted = {}, false
    for i = 1, grabs do
        local at = 1 + (i - 1) * GRAB_ARGS
        local viewer, fingerprint = args[at + 1], args[at + 2]
        local idempotency = keys[GRAB_KEYS + i]
        local reply = recall(idempotency, fingerprint)
        if not reply then
            local had = rc('HGET', keys[6], viewer)
            if had then
                reply = { 'ok', '{"amount_cents":' .. had .. ',"again":true}' }
            end
        end
        if not reply then
            reply = refusal
        end
        if not reply and rc('HEXISTS', keys[11], viewer) == 1 then
            reply = refuse('forbidden')
        end
        if not reply then
            local who = { viewer = viewer, level = tonumber(args[at + 3]), tags = args[at + 4] }
            if not eligible(room, packet.gates, who, keys[8], keys[9], keys[10]) then
                reply = refuse('not_eligible')
            end
        end
        if not reply then
            local part = rc('LPOP', keys[5])
            if not part then
                reply = refuse('empty')
            else
                local cents = tonumber(part)
                rc('HSET', keys[6], viewer, part)
                local mine = rc('HGET', keys[12], viewer)
                local entry = '"' .. packet.id .. '":' .. part
                rc('HSET', keys[12], viewer, mine and (mine .. ',' .. entry) or entry)
                packet.granted = packet.granted + cents
                packet.grabbed = packet.grabbed + 1
                -- The earliest of equals is the luckiest.
                if cents > packet.best_cents then
                    packet.best_cents = cents
                    packet.best = '{"viewer":"' .. viewer .. '","name":' .. args[at + 5] .. ',"amount_cents":' .. part .. '}'
                end
                rc('XADD', keys[7], '*', 'packet', packet.id, 'viewer', viewer, 'amount', part, 'at', int(room.now))
                personal(room, viewer, '{"ev":"you.grab","packet":"' .. packet.id .. '","amount_cents":' .. part .. '}')
                if #shown < SHOWN_MAX then
                    shown[#shown + 1] = '{"ev":"grabbed","at":' .. int(room.now) .. ',"packet":"' .. packet.id
                        .. '","from":' .. args[at + 6] .. ',"amount_cents":' .. part .. '}'
                end
                local json = '{"amount_cents":' .. part .. ',"again":false}'
                remember(idempotency, fingerprint, json)
                reply = { 'ok', json }
                granted = true
            end
        end
        replies[i + 1] = reply
    end
    if granted then
        rc('HSET', packet.key, 'granted', int(packet.granted), 'grabbed', int(packet.grabbed), 'best', packet.best,
            'best_cents', int(packet.best_cents))
        rc('SPUBLISH', room.bus, message('c', '0', table.concat(shown, '\n')))
        packet_gauge(room, packet)
        if packet.grabbed == packet.shares then
            settle_packet(room, packet, keys[5], keys[7])
        end
    end
    return replies
end

shared.read_packet = read_packet
shared.packet_body = packet_body
register('packet_send', packet_send)
register('packet_cancel', packet_cancel)
register('packet_tick', packet_tick)
register('packet_grab', packet_grab)
