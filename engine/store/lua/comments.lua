--[[
  comments: accept, delete, pin.

  Every accepted comment gets the next number of its room and is kept (newest 10,000); what viewers see of it may be
  thinned by the fan-out. A mute, mute-all and the per-viewer rate are decided here, so they hold on every worker.
  tests tests/lua/test_comments.py
]]

--[[
  comment_post: a batch of comments, in order.

  keys  [1] meta [2] log [3] bus [4] comments STREAM [5] mutes HASH [6] rates HASH, then one idempotency key a comment
  args  [1] vouched replication id [2] milliseconds a comment costs [3] milliseconds of burst, then for each comment
        viewer, rank, fingerprint, body: from, text, reply_to as the inside of a JSON object. Ranks from moderator up
        are exempt from mute-all, slow mode and the rate; nobody is exempt from a mute.
  reply {now, reply, reply …}: {'ok', comment} | {'muted', "until"} | {'rate_limited', "retry_ms"} | {'room_not_live'}
        | {'conflict'} | {'room_not_found'}
  invariants  numbers rise by one; one number per key
  cost  O(1) a comment: 4 reads, 4 writes; one publication a batch
]]
local COMMENT_ARGS = 4

local function comment_post(keys, args)
    local room = open_room(keys[1], keys[2], keys[3], args[1])
    local cost_ms, burst_ms = tonumber(args[2]), tonumber(args[3])
    local count = (#args - 3) / COMMENT_ARGS
    local replies = { '0' }
    if not room then
        for i = 1, count do
            replies[i + 1] = refuse('room_not_found')
        end
        return replies
    end
    replies[1] = int(room.now)
    local m = rc('HMGET', room.meta, 'comment', 'muted_all', 'slow_ms')
    local last = tonumber(m[1])
    local first = last + 1
    local muted_all = m[2] == '1'
    local slow_ms = tonumber(m[3]) or 0
    local events = {}
    for i = 1, count do
        local at = 3 + (i - 1) * COMMENT_ARGS
        local viewer, rank, fingerprint, body = args[at + 1], tonumber(args[at + 2]), args[at + 3], args[at + 4]
        local idempotency = keys[6 + i]
        local staff = rank >= 2
        local reply = nil
        local done = rc('GET', idempotency)
        if done then
            local cut = string.find(done, '|', 1, true)
            if string.sub(done, 1, cut - 1) == fingerprint then
                reply = { 'ok', string.sub(done, cut + 1) }
            else
                reply = refuse('conflict')
            end
        elseif not LIVE[room.state] then
            reply = refuse('room_not_live', '"state":"' .. room.state .. '"')
        elseif muted_all and not staff then
            reply = refuse('muted', '"until":0,"all":true')
        end
        -- Unlike the limits, a mute holds for every role: it was given by somebody of a higher one.
        if not reply then
            local till = rc('HGET', keys[5], viewer)
            if till and (till == '0' or tonumber(till) > room.now) then
                reply = refuse('muted', '"until":' .. till)
            end
        end
        if not reply then
            if not staff then
                -- GCRA: `due` is when the viewer's bucket is full again. Slow mode is a bucket of one.
                local cost, burst = cost_ms, burst_ms
                if slow_ms > 0 then
                    cost, burst = slow_ms, 0
                end
                local due = tonumber(rc('HGET', keys[6], viewer) or '') or 0
                if due < room.now then
                    due = room.now
                end
                if due > room.now + burst then
                    reply = refuse('rate_limited', '"retry_ms":' .. int(due - room.now - burst))
                else
                    rc('HSET', keys[6], viewer, int(due + cost))
                end
            end
        end
        if not reply then
            last = last + 1
            local object = '"comment":' .. int(last) .. ',"at":' .. int(room.now) .. ',' .. body
            rc('XADD', keys[4], 'MAXLEN', '~', COMMENTS_KEPT, int(last) .. '-0', 'c', '{' .. object .. '}',
                'v', viewer, 'r', rank)
            rc('SET', idempotency, fingerprint .. '|' .. int(last), 'PX', KEY_KEPT_MS)
            events[#events + 1] = '{"ev":"comment",' .. object .. '}'
            reply = { 'ok', int(last) }
        end
        replies[i + 1] = reply
    end
    if #events > 0 then
        rc('HSET', room.meta, 'comment', int(last))
        rc('SPUBLISH', room.bus, message('c', int(first), table.concat(events, '\n')))
    end
    return replies
end

local function find_comment(key, comment)
    local found = rc('XRANGE', key, comment .. '-0', comment .. '-0')
    if #found == 0 then
        return nil
    end
    local f = found[1][2]
    return { json = f[2], viewer = f[4], rank = tonumber(f[6]) }
end

--[[
  comment_delete: take a comment off every screen and out of the replay; unpins it.

  keys  console, [6] comments STREAM
  args  console, [8] comment
  reply {'ok', {}} | {'not_found'} | {'forbidden'} when its author's role is equal or higher, unless it is one's own
  cost  O(1)
]]
local function comment_delete(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    local comment = find_comment(keys[6], args[8])
    if not comment then
        return refuse('not_found')
    end
    if comment.viewer ~= room.actor and comment.rank >= room.rank then
        return refuse('forbidden')
    end
    local pinned = rc('HGET', room.meta, 'pinned')
    rc('XDEL', keys[6], args[8] .. '-0')
    fact(room, 'comment.deleted', '"comment":' .. args[8])
    if pinned == args[8] then
        rc('HDEL', room.meta, 'pinned', 'pinned_json')
        fact(room, 'comment.pinned', '"comment":null')
    end
    return finish(room, '{}', comment.json)
end

--[[
  comment_pin: show one comment above the others; the one before it gives way in the same fact.

  keys  console, [6] comments STREAM
  args  console, [8] comment
  reply {'ok', {}} | {'not_found'}
  cost  O(1)
]]
local function comment_pin(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    local comment = find_comment(keys[6], args[8])
    if not comment then
        return refuse('not_found')
    end
    local was = rc('HGET', room.meta, 'pinned')
    if was ~= args[8] then
        rc('HSET', room.meta, 'pinned', args[8], 'pinned_json', comment.json)
        fact(room, 'comment.pinned', '"comment":' .. comment.json)
    end
    return finish(room, '{}', was or 'null')
end

--[[
  comment_unpin: stop showing this comment above the others.

  keys  console
  args  console, [8] comment
  reply {'ok', {}} | {'not_found'} when it is not pinned
  cost  O(1)
]]
local function comment_unpin(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    if rc('HGET', room.meta, 'pinned') ~= args[8] then
        return refuse('not_found')
    end
    rc('HDEL', room.meta, 'pinned', 'pinned_json')
    fact(room, 'comment.pinned', '"comment":null')
    return finish(room, '{}', args[8])
end

register('comment_post', comment_post)
register('comment_delete', comment_delete)
register('comment_pin', comment_pin)
register('comment_unpin', comment_unpin)
