#!lua
-- The presence of one group: who comes, who goes, who is there. One round trip, one slot.
--
-- KEYS: 1 board (hash: #epoch, #reign, #offset, #lingering, and for each key "=NAME" the number of its connections,
--         or "-ENTRY" while it lingers without one)
--       2 owners (zset: when an owner's lease runs out, in ms), 3 lingering (zset: when a NAME is gone, in ms)
--       4 the caller's connections (hash: "#" EPOCH:SEQUENCE, and "CONNECTION\nNAME" its entry), or the board again;
--         those of other owners are found by their names, in the same slot
-- ARGV: 1 change, renew, read or count, 2 an epoch, should a new one begin, 3 owner ("" for none), 4 lease, 5 linger,
--       6 how long all this is kept (ms each), 7 PUBLISH or SPUBLISH, 8 pub/sub channel, 9 sequence number of the change,
--       10… pairs: CONNECTION\nNAME, and its entry ("" for a leave)
-- Returns whether the owner's lease had run out (then it enters everything again), how many connections it has, how many
--   keys are present, in how many ms to come again (-1 for no need), offset, epoch; to read, lists of entries follow,
--   in which what does not begin with "=" is none. A change that was overtaken by a later one returns nothing.
--
-- What belongs together may be lost in part, if the server runs out of memory and evicts. That is found, and all begins anew.

local board, owners, lingering, mine = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local what, owner = ARGV[1], ARGV[3]
local lease, linger, keep = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local BUDGET, DEAD = 500, 16 -- connections, and owners, that one call buries; the next one goes on

-- include reign

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local state = redis.call('HMGET', board, '#epoch', '#reign', '#offset', '#lingering')
local epoch, offset, lingerers = state[1], tonumber(state[3]), tonumber(state[4])
local names, before, entered, left -- keys that came or went: which, whether they were present, with what

local function begin_anew()
  for _, other in ipairs(redis.call('ZRANGE', owners, 0, -1)) do
    redis.call('UNLINK', board .. ':' .. other)
  end
  redis.call('UNLINK', board, owners, lingering)
  epoch, offset, lingerers = ARGV[2], 0, 0
  names, before, entered, left = {}, {}, {}, {}
  redis.call('HSET', board, '#epoch', epoch, '#reign', reign, '#offset', 0, '#lingering', 0)
end

local function epoch_of(connections)
  local mark = redis.call('HGET', connections, '#')
  if mark then
    return string.match(mark, '^(.*):(%d+)$')
  end
end

local function name_of(field)
  return string.sub(field, string.find(field, '\n', 1, true) + 1)
end

local function remember(name, present)
  if before[name] == nil then
    before[name] = present
    names[#names + 1] = name
  end
end

local function gone(name, entry)
  redis.call('HDEL', board, '=' .. name)
  remember(name, true)
  left[name] = entry
end

local function enter(field, entry)
  if redis.call('HSET', mine, field, entry) == 0 then
    return
  end
  local name = name_of(field)
  local count = redis.call('HGET', board, '=' .. name)
  if not count then
    remember(name, false)
    count = 0
  elseif string.sub(count, 1, 1) == '-' then
    redis.call('ZREM', lingering, name)
    lingerers = lingerers - 1
    count = 0
  end
  redis.call('HSET', board, '=' .. name, tonumber(count) + 1)
  entered[name] = entered[name] or {}
  table.insert(entered[name], entry)
end

local function release(field, entry, stays)
  local name = name_of(field)
  local count = tonumber(redis.call('HGET', board, '=' .. name))
  if not count then
    return
  elseif count > 1 then
    redis.call('HSET', board, '=' .. name, count - 1)
  elseif stays > 0 then
    redis.call('HSET', board, '=' .. name, '-' .. entry)
    redis.call('ZADD', lingering, now + stays, name)
    lingerers = lingerers + 1
  else
    gone(name, entry)
  end
end

local function leave(field)
  local entry = redis.call('HGET', mine, field)
  if entry then
    redis.call('HDEL', mine, field)
    release(field, entry, linger)
  end
end

if what == 'count' and not epoch then
  return {0, 0, 0, -1, 0, ''}
elseif what == 'change' and epoch then
  local known, sequence = epoch_of(mine)
  if known == epoch and tonumber(sequence) >= tonumber(ARGV[9]) then
    return {}
  end
end

-- Is all there that belongs together?
names, before, entered, left = {}, {}, {}, {}
if not epoch or state[2] ~= reign or not offset or redis.call('ZCARD', lingering) ~= lingerers then
  begin_anew()
end

-- Bury the dead.
local budget = BUDGET
local dead = redis.call('ZRANGEBYSCORE', owners, '-inf', now, 'LIMIT', 0, DEAD)
for _, other in ipairs(dead) do
  if other ~= owner and budget > 0 then
    local connections = board .. ':' .. other
    if epoch_of(connections) ~= epoch then
      begin_anew()
      break
    end
    local fields = redis.call('HRANDFIELD', connections, budget + 1, 'WITHVALUES')
    for at = 1, #fields, 2 do
      if fields[at] ~= '#' then
        redis.call('HDEL', connections, fields[at])
        release(fields[at], fields[at + 1], 0)
        budget = budget - 1
      end
    end
    if redis.call('HLEN', connections) <= 1 then
      redis.call('UNLINK', connections)
      redis.call('ZREM', owners, other)
    end
  end
end
local due = redis.call('ZRANGEBYSCORE', lingering, '-inf', now, 'LIMIT', 0, BUDGET)
for _, name in ipairs(due) do
  local entry = redis.call('HGET', board, '=' .. name)
  redis.call('ZREM', lingering, name)
  lingerers = lingerers - 1
  if entry and string.sub(entry, 1, 1) == '-' then
    gone(name, string.sub(entry, 2))
  end
end

-- Who is asking?
local lapsed = 0
if owner ~= '' then
  local ends, known = redis.call('ZSCORE', owners, owner), epoch_of(mine)
  if ends and known ~= epoch then
    begin_anew() -- its connections are counted, and lost
  end
  if known and known ~= epoch then
    redis.call('UNLINK', mine)
    known = nil
  end
  if not ends or tonumber(ends) <= now or not known then
    lapsed = 1
  end
  if what == 'change' then
    redis.call('HSET', mine, '#', epoch .. ':' .. ARGV[9])
  end
  if known or what == 'change' then
    redis.call('ZADD', owners, now + lease, owner)
  end
end

for at = 10, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    leave(ARGV[at])
  else
    enter(ARGV[at], ARGV[at + 1])
  end
end

-- Tell the members.
local joins, leaves = {}, {}
for _, name in ipairs(names) do
  local present = redis.call('HEXISTS', board, '=' .. name) == 1
  if present and not before[name] then
    for _, entry in ipairs(entered[name]) do
      table.insert(joins, struct.pack('>I4', #entry) .. entry)
    end
  elseif before[name] and not present then
    table.insert(leaves, struct.pack('>I4', #left[name]) .. left[name])
  end
end
if #joins + #leaves > 0 then
  offset = offset + 1
  local head = 'p' .. offset .. ' ' .. epoch .. ' ' .. #joins .. ' ' .. #leaves .. '\n'
  redis.call(ARGV[7], ARGV[8], head .. table.concat(joins) .. table.concat(leaves))
end
redis.call('HSET', board, '#offset', offset, '#lingering', lingerers)
for at = 1, 4 do
  redis.call('PEXPIRE', KEYS[at], keep)
end

local again = -1
if budget <= 0 or #dead == DEAD or #due == BUDGET then
  again = 0
elseif lingerers > 0 then
  again = math.max(0, redis.call('ZRANGE', lingering, 0, 0, 'WITHSCORES')[2] - now)
end
local held = 0
if owner ~= '' then
  held = math.max(0, redis.call('HLEN', mine) - 1)
end
local answer = {lapsed, held, redis.call('HLEN', board) - 4, again, offset, epoch}
if what == 'read' then
  for _, other in ipairs(redis.call('ZRANGE', owners, 0, -1)) do
    table.insert(answer, redis.call('HVALS', board .. ':' .. other))
  end
  local last = {}
  for _, name in ipairs(redis.call('ZRANGE', lingering, 0, -1)) do
    table.insert(last, string.sub(redis.call('HGET', board, '=' .. name), 2))
  end
  table.insert(answer, last)
end
return answer
