-- How much there is in a queue.
--
-- KEYS: 1 jobs, 2 delayed, 3 dead (see queue_put, queue_bury)
-- Returns how many jobs are in the stream, how many of these are being worked on, how many are delayed, and dead.

local pending = redis.pcall('XPENDING', KEYS[1], 'workers')
if pending.err and not string.find(pending.err, 'NOGROUP', 1, true) then
  return pending
end
return {
  redis.call('XLEN', KEYS[1]),
  pending.err and 0 or pending[1],
  redis.call('ZCARD', KEYS[2]),
  redis.call('XLEN', KEYS[3]),
}
