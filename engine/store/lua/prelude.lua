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

local LIVE = { live = true, paused = true }
local OVER = { closing = true, closed = true }

-- Facts are held this long at least, and this many at least (docs/protocol.md, "Joining").
local FACTS_KEPT_MIN = 1000
-- Comments held for replay and moderation; older ones leave first.
local COMMENTS_KEPT = 10000
local AUDIT_KEPT = 10000
-- A done command is remembered this long after it was done.
local KEY_KEPT_MS = 24 * 3600 * 1000

local function message(kind, header, payload)
    return kind .. ' ' .. header .. '\n' .. payload
end

-- The replication id changes on every restart and promotion. The engine says in `fallback_epoch` whether that can
-- have lost anything acknowledged: empty when its configuration proves it cannot, else a fresh epoch to continue with.
local function check_epoch(room)
    local info = rc('INFO', 'replication')
    local replid = string.match(info, 'master_replid:(%w+)') or '?'
    if room.replid == replid then
        return
    end
    rc('HSET', room.meta, 'replid', replid)
    if room.replid and room.fallback_epoch ~= '' then
        room.epoch = room.fallback_epoch
        room.seq = 0
        rc('DEL', room.log)
        rc('HSET', room.meta, 'epoch', room.epoch, 'seq', 0)
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

local function personal(room, viewer, json)
    rc('SPUBLISH', room.bus, message('p', viewer, json))
end

-- Read a room. Returns nil when there is none: nothing creates a room but room_put.
local function open_room(meta, log, bus, fallback_epoch)
    local m = rc('HMGET', meta, 'epoch', 'seq', 'state', 'replid')
    if not m[1] then
        return nil
    end
    return {
        meta = meta, log = log, bus = bus, fallback_epoch = fallback_epoch,
        epoch = m[1], seq = tonumber(m[2]), state = m[3], replid = m[4], now = now_ms(),
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

  keys [1] meta [2] log [3] bus [4] audit [5] idempotency   args [1] fallback epoch [2] fingerprint [3] actor
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
