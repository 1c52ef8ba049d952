--[[
  presence: who is in the room, counted by viewer across workers, safe against workers that die.

  present HASH holds for each viewer their connections, oldest first, as `worker.connection` words; neither part holds
  a dot or a blank. A worker keeps a lease in `leases` while it has viewers here; the viewers of a worker whose lease
  ran out are purged in slices. staff HASH holds the highest rank above viewer among a viewer's connections; it outlives
  them and is set anew by the first join after an absence.
  tests tests/lua/test_presence.py
]]

local LEASE_MS = 6000

local function publish_online(room, present)
    local now = rc('HLEN', present)
    local peak = tonumber(rc('HGET', room.meta, 'peak') or '0')
    if now > peak then
        peak = now
        rc('HSET', room.meta, 'peak', peak)
    end
    gauge(room, 'online', '{"ev":"online","now":' .. int(now) .. ',"peak":' .. int(peak) .. '}')
    return now, peak
end

-- The connections in `words` without those for which `gone` holds, and whether `worker` still has one.
local function without(words, worker, gone)
    local kept, still = {}, false
    for word in string.gmatch(words, '%S+') do
        if not gone(word) then
            kept[#kept + 1] = word
            if string.sub(word, 1, #worker + 1) == worker .. '.' then
                still = true
            end
        end
    end
    return kept, still
end

--[[
  room_join: let a batch of viewers in, each with one connection to one worker.

  keys  [1] meta [2] log [3] bus [4] present HASH [5] leases ZSET [6] viewers of this worker SET [7] viewers HASH
        [8] entries HASH [9] bans HASH [10] mutes HASH [11] staff HASH [12]–[18] the board (shares.lua)
        [19] viewer_orders HASH [20] orders HASH [21] viewer_grabs HASH
  args  [1] vouched replication id [2] worker [3] connections a viewer may hold, then for each viewer
        viewer, connection, rank, entry, name as JSON, from: the sender as JSON, inviter or '', channel of the link or
        '', link: '-' none, '' good, 'forged', 'expired'
  reply {{now, epoch, seq, online, peak, likes}, reply, reply …}: {'ok', muted_until or '', open orders as JSON, grabs as
        JSON, rank or 0, viewers brought} | {'banned'}
        | {'room_not_live', state} | {'room_not_found'}
  cost  O(1) a viewer: 5 reads, 4 writes; one publication a batch
]]
local JOIN_ARGS = 9
-- Arrivals shown: at most four a second, in bursts of four.
local ARRIVAL_COST_MS = 250
local ARRIVAL_BURST_MS = 750

local function room_join(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    local count = (#args - 3) / JOIN_ARGS
    local replies = { {} }
    if not room or room.state == 'closed' then
        for i = 1, count do
            replies[i + 1] = room and refuse('room_not_live', '"state":"closed"') or refuse('room_not_found')
        end
        return replies
    end
    local worker, most = args[2], tonumber(args[3])
    local present = keys[4]
    local arrivals = {}
    local shown = tonumber(rc('HGET', room.meta, 'arrived_due') or '') or 0
    local host_back = false
    shared.open_board(room, keys, 12, keys[9])
    for i = 1, count do
        local at = 3 + (i - 1) * JOIN_ARGS
        local viewer, rank, entry = args[at + 1], tonumber(args[at + 3]), args[at + 4]
        local word = worker .. '.' .. args[at + 2]
        if rc('HEXISTS', keys[9], viewer) == 1 then
            replies[i + 1] = refuse('banned')
        else
            local words = {}
            -- A join repeated after a lost reply must not hold two places.
            local had = rc('HGET', present, viewer) or ''
            words = without(had, worker, function(w) return w == word end)
            -- Staff that opens a second page with a lesser token keeps its rank while the first one is open.
            if #words > 0 then
                rank = math.max(rank, tonumber(rc('HGET', keys[11], viewer) or '') or 0)
            end
            words[#words + 1] = word
            while #words > most do
                local oldest = table.remove(words, 1)
                rc('SPUBLISH', room.bus, message('x', string.gsub(oldest, '%.', ' ', 1), ''))
            end
            rc('HSET', present, viewer, table.concat(words, ' '))
            rc('SADD', keys[6], viewer)
            if rank > 0 then
                rc('HSET', keys[11], viewer, rank)
                if rank >= 3 then
                    host_back = true
                end
            else
                rc('HDEL', keys[11], viewer)
            end
            local first = rc('HSETNX', keys[7], viewer, entry .. '|' .. int(room.now)) == 1
            local via = nil
            if args[at + 9] ~= '-' and not OVER[room.state] then
                local share = { inviter = args[at + 7], invitee = viewer, channel = args[at + 8] }
                local banned = rc('HEXISTS', keys[9], share.inviter) == 1
                if shared.arrive(room, share, args[at + 9], first, banned) then
                    via = rc('HGET', room.names, share.inviter)
                end
            end
            if first then
                rc('HINCRBY', keys[8], entry, 1)
                rc('HSET', room.names, viewer, args[at + 5])
                if shown < room.now then
                    shown = room.now
                end
                if shown <= room.now + ARRIVAL_BURST_MS then
                    shown = shown + ARRIVAL_COST_MS
                    arrivals[#arrivals + 1] = '{"ev":"arrived","at":' .. int(room.now) .. ',"from":' .. args[at + 6]
                        .. (via and (',"via":' .. via) or '') .. '}'
                end
            elseif room.dwell_ms > 0 then
                shared.come_back(room, viewer)
            end
            local till = rc('HGET', keys[10], viewer)
            if not till or (till ~= '0' and tonumber(till) <= room.now) then
                till = ''
            end
            local orders, grabs = '[]', ''
            if not first then
                orders = shared.open_orders(keys[19], keys[20], viewer)
                grabs = rc('HGET', keys[21], viewer) or ''
            end
            local brought = tonumber(rc('HGET', room.invited, viewer) or '') or 0
            local rank = brought > 0 and rc('ZREVRANK', room.board, viewer)
            replies[i + 1] = { 'ok', till, orders, '{' .. grabs .. '}', rank and rank + 1 or 0, brought }
        end
    end
    rc('ZADD', keys[5], int(room.now + LEASE_MS), worker)
    if #arrivals > 0 then
        rc('HSET', room.meta, 'arrived_due', int(shown))
        rc('SPUBLISH', room.bus, message('c', '0', table.concat(arrivals, '\n')))
    end
    if host_back then
        rc('HDEL', room.meta, 'host_gone_at')
        rc('HSET', room.meta, 'hosted', 1)
        if room.state == 'paused' and rc('HGET', room.meta, 'state_reason') == 'streamer_gone' then
            step_room(room, 'live', 'streamer_back')
        end
    end
    local online, peak = publish_online(room, present)
    replies[1] = { int(room.now), room.epoch, int(room.seq), online, peak, rc('HGET', room.meta, 'likes') }
    return replies
end

--[[
  room_leave: a batch of connections is gone.

  keys  [1] meta [2] log [3] bus [4] present HASH [5] viewers of this worker SET
  args  [1] vouched replication id [2] worker, then for each connection viewer, connection
  reply {{}, {'ok'}, {'ok'} …}; leaving twice is harmless
  cost  O(1) a connection
]]
local function room_leave(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    local worker = args[2]
    local replies = { {} }
    for i = 1, (#args - 2) / 2 do
        local viewer, word = args[1 + 2 * i], worker .. '.' .. args[2 + 2 * i]
        local had = rc('HGET', keys[4], viewer)
        local still = false
        if had then
            local words
            words, still = without(had, worker, function(w) return w == word end)
            if #words == 0 then
                rc('HDEL', keys[4], viewer)
            else
                rc('HSET', keys[4], viewer, table.concat(words, ' '))
            end
        end
        -- Also when the viewer is in no place any more: another worker's join may have evicted this connection.
        if not still then
            rc('SREM', keys[5], viewer)
        end
        replies[i + 1] = { 'ok' }
    end
    if room then
        publish_online(room, keys[4])
    end
    return replies
end

--[[
  presence_beat: renew a worker's lease in a room, and say where the room stands.

  keys  [1] meta [2] log [3] bus [4] present HASH [5] leases ZSET
  args  [1] vouched replication id [2] worker
  reply {} when there is no room, else {now, epoch, seq, online, peak, likes, state, worker, worker …}: those whose lease
        ran out. The asking worker is among them when its own had: its viewers may have been purged meanwhile
  cost  O(log workers)
]]
local function presence_beat(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room then
        return {}
    end
    local till = tonumber(rc('ZSCORE', keys[5], args[2]) or '')
    rc('ZADD', keys[5], int(room.now + LEASE_MS), args[2])
    local m = rc('HMGET', room.meta, 'peak', 'likes')
    local reply = { int(room.now), room.epoch, int(room.seq), rc('HLEN', keys[4]), tonumber(m[1]), m[2], room.state }
    if not till or till <= room.now then
        reply[#reply + 1] = args[2]
    end
    for _, worker in ipairs(rc('ZRANGEBYSCORE', keys[5], '-inf', int(room.now), 'LIMIT', 0, 16)) do
        reply[#reply + 1] = worker
    end
    return reply
end

--[[
  presence_purge: forget up to 500 viewers of a worker that stopped renewing its lease.

  keys  [1] meta [2] log [3] bus [4] present HASH [5] leases ZSET [6] viewers of the dead worker SET
  args  [1] vouched replication id [2] the dead worker
  reply {'alive'} when it renewed meanwhile, else {'ok', viewers left to purge}
  cost  O(500)
]]
local function presence_purge(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    local worker = args[2]
    local till = tonumber(rc('ZSCORE', keys[5], worker) or '')
    if room and till and till > room.now then
        return { 'alive' }
    end
    local prefix = worker .. '.'
    for _, viewer in ipairs(rc('SPOP', keys[6], 500)) do
        local had = rc('HGET', keys[4], viewer)
        if had then
            local words = without(had, worker, function(w) return string.sub(w, 1, #prefix) == prefix end)
            if #words == 0 then
                rc('HDEL', keys[4], viewer)
            else
                rc('HSET', keys[4], viewer, table.concat(words, ' '))
            end
        end
    end
    local left = rc('SCARD', keys[6])
    if left == 0 then
        rc('ZREM', keys[5], worker)
    end
    if room then
        publish_online(room, keys[4])
    end
    return { 'ok', left }
end

--[[
  host_check: pause a live room whose streamer is gone for too long, close one that stays so.

  A room is watched from the first join of a streamer. Gone means: no connection with the role streamer or higher on a
  worker whose lease runs.

  keys  [1] meta [2] log [3] bus [4] present HASH [5] leases ZSET [6] staff HASH
  args  [1] vouched replication id [2] grace before the pause, milliseconds [3] pause before the close, milliseconds, 0 never
  reply {'watch', milliseconds until the next check} | {'paused', milliseconds} | {'closing'} | {'done'}
  cost  O(staff)
]]
local HOST_CHECK_MS = 15000

local function host_check(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room or OVER[room.state] then
        return { 'done' }
    end
    if not rc('HGET', room.meta, 'hosted') then
        -- The watch is noted before the join, which may still come, or may have been refused.
        return { 'watch', math.min(HOST_CHECK_MS, tonumber(args[2])) }
    end
    local grace, patience = tonumber(args[2]), tonumber(args[3])
    local look = math.min(HOST_CHECK_MS, grace)
    local staff = rc('HGETALL', keys[6])
    for i = 1, #staff, 2 do
        if tonumber(staff[i + 1]) >= 3 then
            local words = rc('HGET', keys[4], staff[i]) or ''
            for word in string.gmatch(words, '%S+') do
                local till = tonumber(rc('ZSCORE', keys[5], string.match(word, '^([^.]+)')) or '')
                if till and till > room.now then
                    rc('HDEL', room.meta, 'host_gone_at')
                    return { 'watch', look }
                end
            end
        end
    end
    local m = rc('HMGET', room.meta, 'host_gone_at', 'state_reason', 'state_at')
    if room.state == 'paused' and m[2] == 'streamer_gone' then
        local since = tonumber(m[3])
        if patience == 0 then
            return { 'watch', look }
        end
        if room.now >= since + patience then
            step_room(room, 'closing', 'streamer_gone')
            return { 'closing' }
        end
        return { 'watch', since + patience - room.now }
    end
    if room.state ~= 'live' then
        -- Somebody else runs the room; once it is live again, the grace starts anew.
        rc('HDEL', room.meta, 'host_gone_at')
        return { 'watch', look }
    end
    local gone_at = tonumber(m[1] or '')
    if not gone_at then
        gone_at = room.now
        rc('HSET', room.meta, 'host_gone_at', int(gone_at))
    end
    if room.now < gone_at + grace then
        return { 'watch', gone_at + grace - room.now }
    end
    rc('HDEL', room.meta, 'host_gone_at')
    step_room(room, 'paused', 'streamer_gone')
    return { 'paused', patience > 0 and patience or look }
end

register('room_join', room_join)
register('room_leave', room_leave)
register('presence_beat', presence_beat)
register('presence_purge', presence_purge)
register('host_check', host_check)
