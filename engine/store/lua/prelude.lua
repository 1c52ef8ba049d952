--[[
  prelude: what every function of the library shares.

  Decides how time is read, how numbers are written, how a fact becomes history, and how a console command is made
  idempotent and audited. Each file of this folder is joined behind it into one library (engine/store/functions.py).

  Conventions are in README.md beside this file: keys are passed in, every check comes before the first write, a
  reply starts with a code, an error reply is a bug.
]]

-- redis.call does not exist while the library loads, so it is looked up at each call.
local function rc(...)
    return redis.call(...)
end

local function now_ms()
    local t = rc('TIME')
    return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- Lua writes large numbers as 1.8e+15; the wire wants every digit.
local function int(n)
    return string.format('%.0f', n)
end

-- The registered name carries the hash of the library's text, so two versions of the engine can share a store.
local function register(name, callback, flags)
    redis.register_function({ function_name = 'PREFIX' .. name, callback = callback, flags = flags or {} })
end

-- What one feature's file offers to another's; filled while the library loads.
local shared = {}

local LIVE = { live = true, paused = true }
local OVER = { closing = true, closed = true }

-- Facts are held this long at least, and this many at least (docs/protocol.md, "Joining").
local FACTS_KEPT_MIN = 1000
-- Comments held for replay and moderation; older ones leave first.
local COMMENTS_KEPT = 10000
local AUDIT_KEPT = 10000
-- A done command is remembered this long after it was done.
local KEY_KEPT_MS = 24 * 3600 * 1000

-- How far counters jump when the end of a room's history may be lost.
local LOST_NUMBERS = 1000000

local function message(kind, header, payload)
    return kind .. ' ' .. header .. '\n' .. payload
end

-- The store's replication id changes on every restart and promotion. The engine vouches for an id when its
-- configuration proves that nothing was lost on the way to it, and nothing it has seen contradicts that. An id with a
-- '+' behind it is one of a promoted replica that holds everything acknowledged: viewers may have seen more, but what
-- was sold is all there.
local function replication_id(room)
    if not room.current_replid then
        room.current_replid = string.match(rc('INFO', 'replication'), 'master_replid:(%w+)') or '?'
    end
    return room.current_replid
end

-- Whether units and cents are what was acknowledged.
local function ledger_is_whole(room)
    local replid = replication_id(room)
    return not room.replid or room.replid == replid or room.vouched == replid or room.vouched == replid .. '+'
end

-- A room whose history may have lost its end goes on in another epoch. `line` is the id since which nothing
-- acknowledged was lost; a sale remembers the line it was armed on.
local function check_epoch(room)
    local replid = replication_id(room)
    if room.replid == replid then
        return
    end
    rc('HSET', room.meta, 'replid', replid)
    if room.replid and room.vouched ~= replid then
        if not ledger_is_whole(room) then
            room.line = replid
            rc('HSET', room.meta, 'line', replid)
        end
        room.epoch = string.format('%x', room.now) .. string.sub(replid, 1, 6)
        room.seq = 0
        rc('DEL', room.log)
        rc('HSET', room.meta, 'epoch', room.epoch, 'seq', 0)
        -- Numbers given on the lost line of history are not given again: shops keep them as ids and cursors.
        for _, counter in ipairs({ 'order', 'change', 'share_record' }) do
            rc('HINCRBY', room.meta, counter, LOST_NUMBERS)
        end
    end
    room.replid = replid
end

local function trim_log(room)
    if room.seq % 64 ~= 0 then
        return
    end
    local kept_ms = tonumber(rc('HGET', room.meta, 'facts_kept_ms') or '') or 86400000
    local oldest = rc('XRANGE', room.log, '-', '+', 'COUNT', 256)
    local first_kept = nil
    for i = 1, #oldest do
        local id = oldest[i][1]
        local seq = tonumber(string.match(id, '^(%d+)'))
        local at = tonumber(oldest[i][2][4])
        if at > room.now - kept_ms or seq > room.seq - FACTS_KEPT_MIN then
            break
        end
        first_kept = seq + 1
    end
    if first_kept then
        rc('XTRIM', room.log, 'MINID', int(first_kept) .. '-0')
    end
end

-- Append one fact to the room's history and publish it. `body` is the inside of a JSON object, or ''.
-- Call it after every check: it writes.
local function fact(room, name, body)
    check_epoch(room)
    room.seq = room.seq + 1
    local seq = int(room.seq)
    local json = '{"ev":"' .. name .. '","seq":' .. seq .. ',"at":' .. int(room.now)
    if body ~= '' then
        json = json .. ',' .. body
    end
    json = json .. '}'
    rc('HSET', room.meta, 'seq', seq)
    rc('XADD', room.log, seq .. '-0', 'e', json, 't', int(room.now))
    rc('SPUBLISH', room.bus, message('f', room.epoch .. ' ' .. seq .. ' ' .. name, json))
    trim_log(room)
end

local function gauge(room, name, json)
    rc('SPUBLISH', room.bus, message('g', name, json))
end

-- One message may be for several viewers: names apart by spaces, JSON by line ends, in the same order.
local function personal(room, viewers, lines)
    rc('SPUBLISH', room.bus, message('p', viewers, lines))
end

-- Read a room. Returns nil when there is none: nothing creates a room but room_put.
local function open_room(meta, log, bus, vouched)
    local m = rc('HMGET', meta, 'epoch', 'seq', 'state', 'replid', 'line')
    if not m[1] then
        return nil
    end
    return {
        meta = meta, log = log, bus = bus, vouched = vouched,
        epoch = m[1], seq = tonumber(m[2]), state = m[3], replid = m[4], line = m[5] or '', now = now_ms(),
    }
end

local function state_body(state, reason)
    local body = '"state":"' .. state .. '"'
    if reason ~= '' then
        body = body .. ',"reason":"' .. reason .. '"'
    end
    return body
end

-- Every step writes the same fields; a reason says who took it when no console did.
local function step_room(room, to, reason)
    rc('HSET', room.meta, 'state', to, 'state_reason', reason, 'state_at', int(room.now))
    room.state = to
    fact(room, 'room.state', state_body(to, reason))
end

local function refuse(code, extra)
    return { code, extra or '' }
end

--[[
  A console command: idempotent by key, audited.

  keys [1] meta [2] log [3] bus [4] audit [5] idempotency   args [1] vouched replication id [2] fingerprint [3] actor
  [4] actor's rank [5] command [6] key [7] the command as JSON
  Every such function starts with `begin` and ends with `finish`. `begin` returns the room, or nil and the reply.
]]
local CONSOLE_KEYS = 5
local CONSOLE_ARGS = 7

local function begin(keys, args, allowed_when_over)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room then
        return nil, refuse('room_not_found')
    end
    local done = rc('GET', keys[5])
    if done then
        local cut = string.find(done, '|', 1, true)
        if string.sub(done, 1, cut - 1) ~= args[2] then
            return nil, refuse('conflict')
        end
        return nil, { 'ok', string.sub(done, cut + 1) }
    end
    if OVER[room.state] and not allowed_when_over then
        return nil, refuse('room_not_live', '"state":"' .. room.state .. '"')
    end
    room.audit, room.idempotency = keys[4], keys[5]
    room.fingerprint, room.actor, room.rank = args[2], args[3], tonumber(args[4])
    room.command, room.key, room.json = args[5], args[6], args[7]
    return room
end

local function finish(room, reply, before)
    rc('SET', room.idempotency, room.fingerprint .. '|' .. reply, 'PX', KEY_KEPT_MS)
    rc('XADD', room.audit, 'MAXLEN', '~', AUDIT_KEPT, '*', 'at', int(room.now), 'actor', room.actor,
        'cmd', room.command, 'key', room.key, 'before', before or 'null', 'after', room.json)
    return { 'ok', reply }
end

--[[
  Eligibility: who may take part, decided when they try. A sale or packet keeps its gates as fields of its hash:
  gate_tags (words, one must match), gate_level, gate_dwell_s, gate_first, gate_shared. A gate that is absent is open.
  `who` is {viewer, level, tags with a comma at both ends}; keys are those that hold the facts of a gate.
]]
local GATES = { 'gate_tags', 'gate_level', 'gate_dwell_s', 'gate_first', 'gate_shared' }

local function joined_at(viewers, viewer)
    local entry = rc('HGET', viewers, viewer)
    return entry and tonumber(string.match(entry, '|(%d+)$')) or nil
end

local function eligible(room, gates, who, viewers, viewer_orders, invited)
    if gates[1] and gates[1] ~= '' then
        local found = false
        for tag in string.gmatch(gates[1], '[^,]+') do
            if string.find(who.tags, ',' .. tag .. ',', 1, true) then
                found = true
            end
        end
        if not found then
            return false
        end
    end
    if gates[2] and gates[2] ~= '' and who.level < tonumber(gates[2]) then
        return false
    end
    if gates[3] and gates[3] ~= '' then
        local since = joined_at(viewers, who.viewer)
        if not since or room.now - since < tonumber(gates[3]) * 1000 then
            return false
        end
    end
    if gates[4] == '1' and rc('HEXISTS', viewer_orders, who.viewer) == 1 then
        return false
    end
    if gates[5] and gates[5] ~= '' then
        local brought = tonumber(rc('HGET', invited, who.viewer) or '') or 0
        if brought < tonumber(gates[5]) then
            return false
        end
    end
    return true
end

-- What a key's remembered words say to a command: its reply again, a conflict, or nothing when there are none.
local function recalled(done, fingerprint)
    if not done then
        return nil
    end
    local cut = string.find(done, '|', 1, true)
    if string.sub(done, 1, cut - 1) ~= fingerprint then
        return refuse('conflict')
    end
    return { 'ok', string.sub(done, cut + 1) }
end

local function recall(idempotency, fingerprint)
    return recalled(rc('GET', idempotency), fingerprint)
end

local function remember(idempotency, fingerprint, reply, kept_ms)
    rc('SET', idempotency, fingerprint .. '|' .. reply, 'PX', int(kept_ms or KEY_KEPT_MS))
end
