-- Give an event the next position of its group, keep it, and publish it. One round trip, one slot.
--
-- KEYS: 1 meta (hash: epoch, run, offset), 2 log (stream: id OFFSET-0, field e), 3 once:KEY (text "offset:epoch") or meta again
-- ARGV: 1 payload, 2 size, 3 milliseconds the log is kept, 4 seconds the meta is kept, 5 the server's run id ("": ask it),
--       6 an epoch, should a new one begin, 7 pub/sub channel, 8 PUBLISH or SPUBLISH, 9 "1" if there is an idempotency key
-- Returns offset, epoch, and 1 if the event is new or 0 if its key was known.

local here = ARGV[5]
if here == '' then
  here = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end
local epoch, run, offset = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'run', 'offset'))
if not epoch or run ~= here then
  -- No history, or that of another run of the server: it may be an old snapshot, and must not be continued.
  epoch, offset = ARGV[6], 0
  redis.call('UNLINK', KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'run', here, 'offset', 0)
end
if ARGV[9] == '1' then
  local known = redis.call('GET', KEYS[3])
  if known then
    local at, of = string.match(known, '^(%d+):(.*)$')
    if of == epoch then
      return {tonumber(at), of, 0}
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
if ARGV[9] == '1' then
  redis.call('SET', KEYS[3], offset .. ':' .. epoch, 'PX', ARGV[3])
end
redis.call(ARGV[8], ARGV[7], 'h' .. offset .. ':' .. epoch .. ':' .. ARGV[1])
return {offset, epoch, 1}
