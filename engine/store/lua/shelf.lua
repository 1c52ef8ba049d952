--[[
  shelf: the notice, the items and the one being explained.

  Item ids are unique on the shelf; the order is `sort` ascending, ties by id. At most one item is explained.
  tests tests/lua/test_shelf.py
]]

-- Largest integer that every client reads exactly (protocol/limits.py).
local INTEGER_MAX = 2 ^ 53 - 1

--[[
  notice_set: replace the announcement, optionally only if the sender knows the current one.

  keys  console
  args  console, [8] body: text and card as the inside of a JSON object [9] '1' when the text is empty
        [10] version the sender knows, or ''
  reply {'ok', {"version"}} | {'conflict', version}
  cost  O(1)
]]
local function notice_set(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    local m = rc('HMGET', room.meta, 'notice_version', 'notice')
    local version = tonumber(m[1])
    if args[10] ~= '' and tonumber(args[10]) ~= version then
        return refuse('conflict', '"version":' .. int(version))
    end
    local body = args[8] .. ',"version":' .. int(version + 1)
    local notice = '{' .. body .. '}'
    if args[9] == '1' then
        notice = ''
    end
    rc('HSET', room.meta, 'notice_version', int(version + 1), 'notice', notice)
    fact(room, 'notice', body)
    local before = m[2]
    if not before or before == '' then
        before = 'null'
    end
    return finish(room, '{"version":' .. int(version + 1) .. '}', before)
end

--[[
  item_put: put a card on the shelf or change it.

  keys  console, [6] items HASH [7] shelf ZSET
  args  console, [8] item [9] body without sort and sold_out, as the inside of a JSON object [10] sort or ''
        [11] most items a shelf may hold
  reply {'ok', item} | {'limit_reached', left}
  cost  O(log items)
]]
local function item_put(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    local items, shelf, item = keys[6], keys[7], args[8]
    local was = rc('HGET', items, item)
    if not was and rc('HLEN', items) >= tonumber(args[11]) then
        return refuse('limit_reached', '"left":0')
    end
    local sort = tonumber(args[10])
    if not sort then
        sort = tonumber(rc('ZSCORE', shelf, item) or '')
    end
    if not sort then
        -- Behind the largest number the wire can carry there is no place; then it shares that one.
        local last = rc('ZREVRANGE', shelf, 0, 0, 'WITHSCORES')
        sort = math.min((tonumber(last[2]) or 0) + 1, INTEGER_MAX)
    end
    local sold_out = 'false'
    if was and string.find(was, '"sold_out":true', 1, true) then
        sold_out = 'true'
    end
    local body = args[9] .. ',"sort":' .. int(sort) .. ',"sold_out":' .. sold_out
    rc('HSET', items, item, '{' .. body .. '}')
    rc('ZADD', shelf, int(sort), item)
    fact(room, 'item.put', body)
    return finish(room, '{' .. body .. '}', was or 'null')
end

--[[
  item_remove: take a card off the shelf. If it is being explained, that ends first, with a fact of its own.

  keys  console, [6] items HASH [7] shelf ZSET
  args  console, [8] item
  reply {'ok', {}} | {'not_found'}
  cost  O(log items)
]]
local function item_remove(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    local was = rc('HGET', keys[6], args[8])
    if not was then
        return refuse('not_found')
    end
    local explaining = rc('HGET', room.meta, 'explaining')
    rc('HDEL', keys[6], args[8])
    rc('ZREM', keys[7], args[8])
    if explaining == args[8] then
        rc('HDEL', room.meta, 'explaining')
        fact(room, 'item.explaining', '"item":null')
    end
    fact(room, 'item.removed', '"item":"' .. args[8] .. '"')
    return finish(room, '{}', was)
end

local function explaining_json(item)
    if item then
        return '"' .. item .. '"'
    end
    return 'null'
end

--[[
  item_explain: explain this item now; the one before it ends in the same fact.

  keys  console, [6] items HASH
  args  console, [8] item
  reply {'ok', {}} | {'not_found'}
  cost  O(1)
]]
local function item_explain(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    if rc('HEXISTS', keys[6], args[8]) == 0 then
        return refuse('not_found')
    end
    local was = rc('HGET', room.meta, 'explaining')
    if was ~= args[8] then
        rc('HSET', room.meta, 'explaining', args[8])
        fact(room, 'item.explaining', '"item":"' .. args[8] .. '"')
    end
    return finish(room, '{}', explaining_json(was))
end

--[[
  item_unexplain: stop explaining this item; nothing happens if another one is explained.

  keys  console
  args  console, [8] item
  reply {'ok', {}} | {'not_found'} when this item is not being explained
  cost  O(1)
]]
local function item_unexplain(keys, args)
    local room, reply = begin(keys, args)
    if not room then
        return reply
    end
    if rc('HGET', room.meta, 'explaining') ~= args[8] then
        return refuse('not_found')
    end
    rc('HDEL', room.meta, 'explaining')
    fact(room, 'item.explaining', '"item":null')
    return finish(room, '{}', explaining_json(args[8]))
end

register('notice_set', notice_set)
register('item_put', item_put)
register('item_remove', item_remove)
register('item_explain', item_explain)
register('item_unexplain', item_unexplain)
