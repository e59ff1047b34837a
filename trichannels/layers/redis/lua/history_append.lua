-- Give an event the next position of its group, keep it, and publish it. One round trip, one slot.
--
-- KEYS: 1 meta (hash: epoch, reign, offset), 2 log (stream: id OFFSET-0, field e),
--       3 once:KEY (text "offset:epoch") or meta again
-- ARGV: 1 payload, 2 size, 3 milliseconds the log is kept, 4 seconds the meta is kept, 5 an epoch, should a new one begin,
--       6 pub/sub channel, 7 PUBLISH or SPUBLISH, 8 "1" if there is an idempotency key
-- Returns offset, epoch, and 1 if the event is new or 0 if its key was known.

-- The server's replication id is another after each start, and each time that it was made the master. What it has may
-- then be an old snapshot, or lack what had not come to the replica; those positions have been given out already.
local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if not reign then
  return redis.error_reply('NOREPLID INFO replication tells no master_replid: no history can be kept here')
end
local epoch, of, offset = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'reign', 'offset'))
if not epoch or of ~= reign then
  epoch, offset = ARGV[5], 0
  redis.call('UNLINK', KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'reign', reign, 'offset', 0)
end
if ARGV[8] == '1' then
  local known = redis.call('GET', KEYS[3])
  if known then
    local at, there = string.match(known, '^(%d+):(.*)$')
    if there == epoch then
      return {tonumber(at), there, 0}
    end
  end
end
offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
if offset == 1 then
  redis.call('UNLINK', KEYS[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[2], offset .. '-0', 'e', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if ARGV[8] == '1' then
  redis.call('SET', KEYS[3], offset .. ':' .. epoch, 'PX', ARGV[3])
end
redis.call(ARGV[7], ARGV[6], 'h' .. offset .. ':' .. epoch .. ':' .. ARGV[1])
return {offset, epoch, 1}
