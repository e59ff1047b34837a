-- Hand jobs out to a worker: those of its own that it has lost sight of, those of dead workers, then those that wait.
--
-- KEYS: 1 jobs, 2 delayed (see queue_put)
-- ARGV: 1 consumer, 2 how many at most, 3 milliseconds without renewal after which a worker is taken for dead,
--       4 where in the pending entries to look on, 5 "1" to look for lost ones of its own, 6... entries that it knows of then
-- Returns jobs as {entry, deliveries in this stream, fields}, where to look on, ms until the next delayed one is due
-- (-1: there is none), and the newest entry that was ever handed out ("" if there are jobs).

local jobs, delayed, consumer, most = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known, count, found = {}, 0, {}
for index = 6, #ARGV do
  known[ARGV[index]] = true
  count = count + 1
end

local function add(entries)
  for _, entry in ipairs(entries) do
    if entry and not known[entry[1]] then
      known[entry[1]] = true
      local pending = redis.call('XPENDING', jobs, 'workers', entry[1], entry[1], 1)
      found[#found + 1] = {entry[1], pending[1][4], entry[2]}
    end
  end
end

local stale = redis.pcall('XAUTOCLAIM', jobs, 'workers', consumer, ARGV[3], ARGV[4], 'COUNT', most)
if stale.err then
  if not string.find(stale.err, 'NOGROUP', 1, true) then
    return stale
  end
  -- The first worker of all, or everything was flushed: from 0, for jobs may have come before it.
  redis.call('XGROUP', 'CREATE', jobs, 'workers', '0', 'MKSTREAM')
  stale = {'0-0', {}}
end
add(stale[2])

if ARGV[5] == '1' then
  for _, pending in ipairs(redis.call('XPENDING', jobs, 'workers', '-', '+', most + count, consumer)) do
    if #found < most and not known[pending[1]] then
      add(redis.call('XCLAIM', jobs, 'workers', consumer, 0, pending[1]))
    end
  end
  for _, other in ipairs(redis.call('XINFO', 'CONSUMERS', jobs, 'workers')) do
    local facts = {}
    for index = 1, #other, 2 do
      facts[other[index]] = other[index + 1]
    end
    if facts.pending == 0 and facts.idle > 3600000 and facts.name ~= consumer then
      redis.call('XGROUP', 'DELCONSUMER', jobs, 'workers', facts.name)
    end
  end
end

for _, member in ipairs(redis.call('ZRANGE', delayed, '-inf', string.format('%d', now), 'BYSCORE', 'LIMIT', 0, 100)) do
  local first = string.find(member, ' ', 1, true)
  local second = string.find(member, ' ', first + 1, true)
  local third = string.find(member, ' ', second + 1, true)
  local id, at = string.sub(member, 1, first - 1), string.sub(member, first + 1, second - 1)
  local n, payload = string.sub(member, second + 1, third - 1), string.sub(member, third + 1)
  redis.call('XADD', jobs, '*', 'id', id, 'at', at, 'n', n, 'p', payload)
  redis.call('ZREM', delayed, member)
end

if #found < most then
  local new = redis.call('XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', most - #found, 'STREAMS', jobs, '>')
  for _, entry in ipairs(new and new[1][2] or {}) do
    found[#found + 1] = {entry[1], 1, entry[2]}
  end
end

local wait, newest = -1, ''
if #found == 0 then
  local next = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  if next[2] then
    wait = math.max(0, tonumber(next[2]) - now)
  end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', jobs)) do
    local facts = {}
    for index = 1, #group, 2 do
      facts[group[index]] = group[index + 1]
    end
    if facts.name == 'workers' then
      newest = facts['last-delivered-id']
    end
  end
end
return {found, stale[1], wait, newest}
