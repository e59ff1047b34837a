-- Give an event the next position of its group, keep it, and publish it. One round trip, one slot.
--
-- KEYS: 1 meta (hash: epoch, reign, offset), 2 log (stream: id OFFSET-0, field e),
--       3 once:KEY (text "offset:epoch") or meta again
-- ARGV: 1 payload, 2 size, 3 milliseconds the log is kept, 4 seconds the meta is kept, 5 an epoch, should a new one begin,
--       6 pub/sub channel, 7 PUBLISH or SPUBLISH, 8 "1" if there is an idempotency key
-- Returns offset, epoch, and 1 if the event is new or 0 if its key was known.

local NEW_EPOCH = ARGV[5]
-- include history
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
