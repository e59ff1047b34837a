-- Let a job that its worker still has wait again, now or later.
--
-- KEYS: 1 jobs, 2 delayed (see queue_put)
-- ARGV: 1 consumer, 2 entry, 3 how often it counts as delivered, 4 milliseconds of delay
-- Returns 1, or 0 if the job is not this worker's any more.

local jobs, entry = KEYS[1], ARGV[2]
local pending = redis.pcall('XPENDING', jobs, 'workers', entry, entry, 1, ARGV[1])
if pending.err then
  return string.find(pending.err, 'NOGROUP', 1, true) and 0 or pending
end
if #pending == 0 then
  return 0
end
local found = redis.call('XRANGE', jobs, entry, entry)[1]
redis.call('XACK', jobs, 'workers', entry)
redis.call('XDEL', jobs, entry)
if not found then
  return 0
end
local job = {id = entry, at = string.match(entry, '^%d+'), p = ''}
for index = 1, #found[2], 2 do
  job[found[2][index]] = found[2][index + 1]
end
if tonumber(ARGV[4]) > 0 then
  local time = redis.call('TIME')
  local due = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[4]))
  redis.call('ZADD', KEYS[2], due, job.id .. ' ' .. job.at .. ' ' .. ARGV[3] .. ' ' .. job.p)
else
  redis.call('XADD', jobs, '*', 'id', job.id, 'at', job.at, 'n', ARGV[3], 'p', job.p)
end
return 1
