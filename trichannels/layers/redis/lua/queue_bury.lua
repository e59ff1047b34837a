-- A job that its worker still has is not to be tried again: it becomes a dead letter.
--
-- KEYS: 1 jobs (see queue_put), 2 dead (stream: the job's fields, and error)
-- ARGV: 1 consumer, 2 entry, 3 how often it was delivered, 4 error, 5 how many dead letters are kept
-- Returns 1, or 0 if the job is not this worker's any more, and how many old dead letters were forgotten.

local jobs, dead, entry = KEYS[1], KEYS[2], ARGV[2]
local pending = redis.pcall('XPENDING', jobs, 'workers', entry, entry, 1, ARGV[1])
if pending.err then
  return string.find(pending.err, 'NOGROUP', 1, true) and {0, 0} or pending
end
if #pending == 0 then
  return {0, 0}
end
local found = redis.call('XRANGE', jobs, entry, entry)[1]
redis.call('XACK', jobs, 'workers', entry)
redis.call('XDEL', jobs, entry)
if not found then
  return {0, 0}
end
local job = {id = entry, at = string.match(entry, '^%d+'), p = ''}
for index = 1, #found[2], 2 do
  job[found[2][index]] = found[2][index + 1]
end
job.n, job.error = ARGV[3], ARGV[4]
local fields = {}
for name, value in pairs(job) do
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end
redis.call('XADD', dead, '*', unpack(fields))
return {1, redis.call('XTRIM', dead, 'MAXLEN', ARGV[5])}
