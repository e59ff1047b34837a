-- A worker leaves, or has lost sight of jobs: what is pending in its name, and not known to it, waits for others.
--
-- KEYS: 1 jobs (see queue_put)
-- ARGV: 1 consumer, 2 "1" if it leaves for good, 3... entries that it knows of
-- Returns how many jobs those were; 100 at most, so that it has to be called again.

local jobs, consumer, known = KEYS[1], ARGV[1], {}
for index = 3, #ARGV do
  known[ARGV[index]] = true
end
local pending = redis.pcall('XPENDING', jobs, 'workers', '-', '+', 100 + #ARGV - 2, consumer)
if pending.err then
  return string.find(pending.err, 'NOGROUP', 1, true) and 0 or pending
end
local released = 0
for _, one in ipairs(pending) do
  local entry = one[1]
  if not known[entry] and released < 100 then
    local found = redis.call('XRANGE', jobs, entry, entry)[1]
    redis.call('XACK', jobs, 'workers', entry)
    redis.call('XDEL', jobs, entry)
    if found then
      local job = {id = entry, at = string.match(entry, '^%d+'), n = 0, p = ''}
      for index = 1, #found[2], 2 do
        job[found[2][index]] = found[2][index + 1]
      end
      local n = string.format('%d', job.n + one[4] - 1) -- this delivery does not count
      redis.call('XADD', jobs, '*', 'id', job.id, 'at', job.at, 'n', n, 'p', job.p)
    end
    released = released + 1
  end
end
if ARGV[2] == '1' and released < 100 then
  redis.call('XGROUP', 'DELCONSUMER', jobs, 'workers', consumer)
end
return released
