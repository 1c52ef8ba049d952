--[[
  likes: one total per room that never falls and equals what was acknowledged.

  likes_add: add what one worker gathered.

  keys  [1] meta [2] log [3] bus [4] flushes HASH worker → number of its last flush
  args  [1] vouched replication id [2] worker [3] flush, rising per worker and room [4] likes
  reply {'ok', total} | {'room_not_live', state} | {'room_not_found'}
  invariants  a flush counts once, however often it is sent
  cost  O(1): 3 reads, 2 writes, 1 publication
  tests tests/lua/test_likes.py
]]
local function likes_add(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room then
        return refuse('room_not_found')
    end
    local last = tonumber(rc('HGET', keys[4], args[2]) or '') or 0
    if tonumber(args[3]) <= last then
        return { 'ok', rc('HGET', room.meta, 'likes') }
    end
    if not LIVE[room.state] then
        return refuse('room_not_live', '"state":"' .. room.state .. '"')
    end
    local total = int(rc('HINCRBY', room.meta, 'likes', args[4]))
    rc('HSET', keys[4], args[2], args[3])
    gauge(room, 'likes', '{"ev":"likes","total":' .. total .. '}')
    return { 'ok', total }
end

register('likes_add', likes_add)
