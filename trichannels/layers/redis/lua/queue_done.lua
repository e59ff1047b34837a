-- Jobs have been carried out: they are gone.
--
-- KEYS: 1 jobs (see queue_put)
-- ARGV: entries
-- Returns how many of them were still there.

redis.call('XACK', KEYS[1], 'workers', unpack(ARGV))
return redis.call('XDEL', KEYS[1], unpack(ARGV))
