--[[
  likes: one total per room that never falls and equals what was acknowledged.

  likes_add: add what one worker gathered, but for those who are too fast. A viewer may hold connections on several
  workers, so their rate is decided here, for all of a flush with one read and one write.

  keys  [1] meta [2] log [3] bus [4] flushes HASH worker → number of its last flush, then places and waits of those it
        refused [5] like_rates HASH viewer → when their bucket is full again (GCRA)
  args  [1] vouched replication id [2] worker [3] flush, rising per worker and room [4] likes of those who are exempt
        [5] milliseconds a command costs [6] milliseconds of burst, then for each command viewer, likes
  reply {'ok', total, place, retry_ms, place, retry_ms …} with the commands refused, counted from 1 |
        {'room_not_live', state} | {'room_not_found'}
  invariants  a flush counts once, however often it is sent, and is answered the same the next time
  cost  O(commands): 4 reads, 3 writes, 1 publication, whatever their number; at most 500 commands
  tests tests/lua/test_likes.py
]]
local LIKE_ARGS = 2
-- A worker lets a viewer through by the moment the command came, this by the moment its flush did. A first command that
-- waited for its flush must not make those after it too early.
local LIKE_SLACK_MS = 50

-- The likes of those who are not too fast, what to remember of the viewers, and who is refused.
local function weigh_likes(room, rates, args)
    local cost, burst = tonumber(args[5]), tonumber(args[6])
    local viewers, due = {}, {}
    for at = 7, #args, LIKE_ARGS do
        if not due[args[at]] then
            due[args[at]] = 0
            viewers[#viewers + 1] = args[at]
        end
    end
    local known = rc('HMGET', rates, unpack(viewers))
    for i = 1, #viewers do
        due[viewers[i]] = math.max(tonumber(known[i] or '') or 0, room.now)
    end
    local likes, refused = 0, {}
    for at = 7, #args, LIKE_ARGS do
        local early = due[args[at]] - room.now - burst
        if early > LIKE_SLACK_MS then
            refused[#refused + 1] = int((at - 7) / LIKE_ARGS + 1)
            refused[#refused + 1] = int(early)
        else
            due[args[at]] = due[args[at]] + cost
            likes = likes + tonumber(args[at + 1])
        end
    end
    local fields = {}
    for i = 1, #viewers do
        fields[2 * i - 1] = viewers[i]
        fields[2 * i] = int(due[viewers[i]])
    end
    return likes, fields, refused
end

local function likes_add(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    if not room then
        return refuse('room_not_found')
    end
    local last, before = string.match(rc('HGET', keys[4], args[2]) or '', '^(%d+)(.*)$')
    last = tonumber(last or '') or 0
    if tonumber(args[3]) <= last then
        local reply = { 'ok', rc('HGET', room.meta, 'likes') }
        if tonumber(args[3]) == last then
            for word in string.gmatch(before or '', '%d+') do
                reply[#reply + 1] = word
            end
        end
        return reply
    end
    if not LIVE[room.state] then
        return refuse('room_not_live', '"state":"' .. room.state .. '"')
    end
    local likes, fields, refused = tonumber(args[4]), nil, {}
    if #args > 6 then
        local weighed
        weighed, fields, refused = weigh_likes(room, keys[5], args)
        likes = likes + weighed
        rc('HSET', keys[5], unpack(fields))
    end
    local total = int(rc('HINCRBY', room.meta, 'likes', int(likes)))
    rc('HSET', keys[4], args[2], table.concat({ args[3], unpack(refused) }, ' '))
    if likes > 0 then
        gauge(room, 'likes', '{"ev":"likes","total":' .. total .. '}')
    end
    return { 'ok', total, unpack(refused) }
end

register('likes_add', likes_add)
