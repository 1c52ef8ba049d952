--[[
  shares: who brought whom.

  First touch: a viewer's first join of the room through a link binds them to its inviter for good. What counts is people
  who came, once each; every arrival through a link leaves a record, counted or not, with the reason. The board is one
  integer per inviter, count * 2^32 + (2^32 - 1 - milliseconds since the room was made when that count was reached), so
  that among equals who got there first stands first; exact below 2^21 viewers and 49 days.
  tests tests/lua/test_shares.py; model: tests/support/campaigns.py
]]

local SCALE = 4294967296
local TOP = 10
local CHAIN_MAX = 16

local function top_of(board)
    return rc('ZREVRANGE', board, 0, TOP - 1, 'WITHSCORES')
end

local function board_json(board, names)
    local top = top_of(board)
    local entries = {}
    for i = 1, #top, 2 do
        entries[#entries + 1] = '{"viewer":"' .. top[i] .. '","name":'
            .. (rc('HGET', names, top[i]) or ('"' .. top[i] .. '"'))
            .. ',"count":' .. int(math.floor(tonumber(top[i + 1]) / SCALE)) .. '}'
    end
    return '[' .. table.concat(entries, ',') .. ']'
end

local function score(room, count, reached_at)
    local since = math.min(math.max(reached_at - room.created, 0), SCALE - 1)
    return int(count * SCALE + (SCALE - 1 - since))
end

local function write_record(room, share, counted, reason)
    check_epoch(room)
    local json = '{"at":' .. int(room.now) .. ',"inviter":' .. (share.inviter and ('"' .. share.inviter .. '"') or 'null')
        .. ',"invitee":"' .. share.invitee .. '","counted":' .. tostring(counted)
    if share.channel ~= '' then
        json = json .. ',"channel":"' .. share.channel .. '"'
    end
    if reason then
        json = json .. ',"reason":"' .. reason .. '"'
    end
    local number = rc('HINCRBY', room.meta, 'share_record', 1)
    rc('XADD', room.shares, int(number) .. '-0', 'j', json .. '}')
end

-- Put an inviter where they stand, or nowhere; publish the head of the board when it changed.
local function place(room, inviter, count, reached_at)
    local before = rc('ZREVRANK', room.board, inviter)
    if count <= 0 or rc('HEXISTS', room.bans, inviter) == 1 then
        rc('ZREM', room.board, inviter)
    else
        rc('ZADD', room.board, score(room, count, reached_at), inviter)
    end
    local after = rc('ZREVRANK', room.board, inviter)
    if (before and before < TOP) or (after and after < TOP) then
        gauge(room, 'rank', '{"ev":"rank","top":' .. board_json(room.board, room.names) .. '}')
    end
end

local function set_count(room, inviter, count, reached_at)
    if count <= 0 then
        rc('HDEL', room.invited, inviter)
    else
        rc('HSET', room.invited, inviter, int(count))
        rc('HSET', room.reached, inviter .. '|' .. int(count), int(reached_at))
    end
    place(room, inviter, count, reached_at)
end

-- In `reached`, '|' and an invitee says that they were counted, '~' and an invitee that they left before they had been
-- here long enough, with the channel they came through. No id starts with either.
local function count_arrival(room, inviter, invitee)
    local count = (tonumber(rc('HGET', room.invited, inviter) or '') or 0) + 1
    rc('HSET', room.reached, '|' .. invitee, '1')
    set_count(room, inviter, count, room.now)
    rc('HINCRBY', room.meta, 'shares', 1)
end

local function in_chain(room, inviter, invitee)
    local up = inviter
    for _ = 1, CHAIN_MAX do
        up = rc('HGET', room.inviters, up)
        if not up then
            return false
        end
        if up == invitee then
            return true
        end
    end
    return false
end

-- An arrival through a link. `flag` is '' for a good token, else 'forged' or 'expired'; `first` says that it is the
-- viewer's first join. Called by room_join, with the board open.
local function arrive(room, share, flag, first, banned_inviter)
    local reason = nil
    if flag ~= '' then
        reason = flag
    elseif share.inviter == share.invitee then
        reason = 'self'
    elseif not first then
        reason = rc('HEXISTS', room.inviters, share.invitee) == 1 and 'again' or 'already_here'
    elseif banned_inviter then
        reason = 'banned'
    elseif in_chain(room, share.inviter, share.invitee) then
        reason = 'cycle'
    end
    if reason then
        if flag == 'forged' then
            share.inviter = nil
        end
        write_record(room, share, false, reason)
        return false
    end
    rc('HSET', room.inviters, share.invitee, share.inviter)
    if room.dwell_ms > 0 then
        rc('ZADD', room.dwelling, int(room.now + room.dwell_ms), share.invitee .. '|' .. share.channel)
        write_record(room, share, false, 'dwell')
        return true
    end
    count_arrival(room, share.inviter, share.invitee)
    write_record(room, share, true)
    return true
end

-- A viewer is here again who had left before they were here long enough: their time starts anew.
local function come_back(room, viewer)
    local channel = rc('HGET', room.reached, '~' .. viewer)
    if channel then
        rc('HDEL', room.reached, '~' .. viewer)
        rc('ZADD', room.dwelling, int(room.now + room.dwell_ms), viewer .. '|' .. channel)
    end
end

-- Keys of the board: [1] inviters [2] board [3] names [4] invited [5] reached [6] dwelling [7] shares; and the bans.
local function open_board(room, keys, first, bans)
    room.bans = bans
    room.inviters, room.board, room.names, room.invited = keys[first], keys[first + 1], keys[first + 2], keys[first + 3]
    room.reached, room.dwelling, room.shares = keys[first + 4], keys[first + 5], keys[first + 6]
    local m = rc('HMGET', room.meta, 'created', 'dwell_ms')
    room.created, room.dwell_ms = tonumber(m[1]), tonumber(m[2] or '') or 0
end

-- A banned viewer no longer counts for whoever brought them, and stands on no board themselves.
local function unarrive(room, viewer)
    place(room, viewer, 0)
    rc('HDEL', room.reached, '~' .. viewer)
    local inviter = rc('HGET', room.inviters, viewer)
    if not inviter or rc('HDEL', room.reached, '|' .. viewer) == 0 then
        return
    end
    local count = tonumber(rc('HGET', room.invited, inviter)) - 1
    -- The time at which the smaller count was reached decides among equals, as if the viewer had never come.
    local reached = tonumber(rc('HGET', room.reached, inviter .. '|' .. int(count)) or '') or room.now
    set_count(room, inviter, count, reached)
    rc('HINCRBY', room.meta, 'shares', -1)
    write_record(room, { inviter = inviter, invitee = viewer, channel = '' }, false, 'banned')
end

-- Somebody who is no longer banned stands again where they stood: what they brought was kept.
local function stand_again(room, viewer)
    local count = tonumber(rc('HGET', room.invited, viewer) or '') or 0
    if count > 0 then
        place(room, viewer, count, tonumber(rc('HGET', room.reached, viewer .. '|' .. int(count)) or '') or room.now)
    end
end

--[[
  shares_mature: count the arrivals that have been here long enough and still are; those who left wait for their return.
  Doing it twice is harmless.

  keys  [1] meta [2] log [3] bus [4] present HASH [5]–[11] the board [12] bans HASH
  args  [1] vouched replication id
  reply {'ok', counted}
  cost  O(100)
]]
local function shares_mature(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room or OVER[room.state] then
        return { 'ok', 0 }
    end
    open_board(room, keys, 5, keys[12])
    local counted = 0
    for _, entry in ipairs(rc('ZRANGEBYSCORE', room.dwelling, '-inf', int(room.now), 'LIMIT', 0, 100)) do
        rc('ZREM', room.dwelling, entry)
        local invitee, channel = string.match(entry, '^([^|]*)|(.*)$')
        if rc('HEXISTS', keys[4], invitee) == 1 then
            local inviter = rc('HGET', room.inviters, invitee)
            count_arrival(room, inviter, invitee)
            write_record(room, { inviter = inviter, invitee = invitee, channel = channel }, true)
            counted = counted + 1
        else
            rc('HSET', room.reached, '~' .. invitee, channel)
        end
    end
    return { 'ok', counted }
end

--[[
  share_rank: the head of the board, and one viewer's own line. Writes nothing.

  keys  [1] board [2] names [3] invited
  args  [1] viewer
  reply {top as JSON, rank or 0, count}
]]
local function share_rank(keys, args)
    local rank = rc('ZREVRANK', keys[1], args[1])
    return { board_json(keys[1], keys[2]), rank and rank + 1 or 0, tonumber(rc('HGET', keys[3], args[1]) or '') or 0 }
end

--[[
  shares_page: share records after a place, oldest first. Writes nothing.

  keys  [1] meta [2] shares STREAM
  args  [1] record [2] how many at most
  reply {} when there is no room, else {last record, number, record, number, record …}
]]
local function shares_page(keys, args)
    if rc('EXISTS', keys[1]) == 0 then
        return {}
    end
    local reply = { rc('HGET', keys[1], 'share_record') or '0' }
    for _, entry in ipairs(rc('XRANGE', keys[2], int(tonumber(args[1]) + 1) .. '-0', '+', 'COUNT', args[2])) do
        reply[#reply + 1] = string.match(entry[1], '^(%d+)')
        reply[#reply + 1] = entry[2][2]
    end
    return reply
end

shared.board_json = board_json
shared.open_board = open_board
shared.arrive = arrive
shared.come_back = come_back
shared.unarrive = unarrive
shared.stand_again = stand_again
register('shares_mature', shares_mature)
register('share_rank', share_rank, { 'no-writes' })
register('shares_page', shares_page, { 'no-writes' })
