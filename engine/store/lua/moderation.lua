--[[
  moderation: mute, kick, ban, mute all.

  Works on absent viewers too. Nobody acts on an equal or higher role: the target's rank is the one in the staff HASH
  (presence.lua), 0 if they are not in it. A mute refuses comments and nothing else; a kick may be followed
  by a new join, a ban may not.
  tests tests/lua/test_moderation.py
]]

local function outranked(room, staff, viewer)
    local rank = tonumber(rc('HGET', staff, viewer) or '') or 0
    return viewer == room.actor or rank >= room.rank
end

--[[
  viewer_mute: refuse a viewer's comments until a moment; again replaces the end.

  keys  console, [6] mutes HASH [7] staff HASH
  args  console, [8] viewer [9] seconds, 0 for ever
  reply {'ok', {"until"}} | {'forbidden'}
  cost  O(1)
]]
local function viewer_mute(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    if outranked(room, keys[7], args[8]) then
        return refuse('forbidden')
    end
    local till = '0'
    if args[9] ~= '0' then
        till = int(room.now + tonumber(args[9]) * 1000)
    end
    local was = rc('HGET', keys[6], args[8])
    rc('HSET', keys[6], args[8], till)
    personal(room, args[8], '{"ev":"you.muted","until":' .. till .. '}')
    return finish(room, '{"until":' .. till .. '}', was or 'null')
end

--[[
  viewer_unmute: let a viewer comment again. Unmuting one who is not muted changes nothing.

  keys  console, [6] mutes HASH [7] staff HASH
  args  console, [8] viewer
  reply {'ok', {}} | {'forbidden'}
  cost  O(1)
]]
local function viewer_unmute(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    if outranked(room, keys[7], args[8]) then
        return refuse('forbidden')
    end
    local was = rc('HGET', keys[6], args[8])
    if was then
        rc('HDEL', keys[6], args[8])
        personal(room, args[8], '{"ev":"you.muted","until":null}')
    end
    return finish(room, '{}', was or 'null')
end

--[[
  viewer_remove: kick or ban. The fact closes every connection of the viewer on every worker.

  keys  console, [6] bans HASH [7] staff HASH [8]–[14] the board (shares.lua)
  args  console, [8] viewer [9] 'kick' | 'ban'
  reply {'ok', {}} | {'forbidden'}
  cost  O(1)
]]
local function viewer_remove(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    if outranked(room, keys[7], args[8]) then
        return refuse('forbidden')
    end
    local was = rc('HEXISTS', keys[6], args[8]) == 1
    if args[9] == 'ban' then
        rc('HSET', keys[6], args[8], int(room.now))
        shared.open_board(room, keys, 8, keys[6])
        shared.unarrive(room, args[8])
    end
    fact(room, 'viewer.removed', '"viewer":"' .. args[8] .. '","how":"' .. args[9] .. '"')
    return finish(room, '{}', '{"banned":' .. tostring(was) .. '}')
end

--[[
  viewer_unban: let a viewer in again, back to their place on the board. Unbanning one who is not banned changes nothing.

  keys  console, [6] bans HASH [7] staff HASH [8]–[14] the board (shares.lua)
  args  console, [8] viewer
  reply {'ok', {}} | {'forbidden'}
  cost  O(1)
]]
local function viewer_unban(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    if outranked(room, keys[7], args[8]) then
        return refuse('forbidden')
    end
    local was = rc('HDEL', keys[6], args[8]) == 1
    if was then
        shared.open_board(room, keys, 8, keys[6])
        shared.stand_again(room, args[8])
    end
    return finish(room, '{}', '{"banned":' .. tostring(was) .. '}')
end

--[[
  room_mute_all: refuse comments from everyone below moderator, or stop doing so.

  keys  console
  args  console, [8] '1' | '0'
  reply {'ok', {}}
  cost  O(1)
]]
local function room_mute_all(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    local was = rc('HGET', room.meta, 'muted_all') == '1'
    local on = args[8] == '1'
    if was ~= on then
        rc('HSET', room.meta, 'muted_all', args[8])
        fact(room, 'room.muted_all', '"on":' .. tostring(on))
    end
    return finish(room, '{}', tostring(was))
end

register('viewer_mute', viewer_mute)
register('viewer_unmute', viewer_unmute)
register('viewer_remove', viewer_remove)
register('viewer_unban', viewer_unban)
register('room_mute_all', room_mute_all)
