-- Where a group's history stands, and a page of what came after an offset.
--
-- KEYS: 1 meta, 2 log (see history_append.lua)
-- ARGV: 1 the server's run id ("": ask it), 2 an epoch, should a new one begin, 3 seconds the meta is kept,
--       4 epoch that the reader knows ("" to be told the top only), 5 offset after which to read,
--       6 how many events may be missing at most, 7 how many a page may have
-- Returns offset, epoch, and a list: offset, payload, offset, payload, ... (empty where another epoch is known)

local here = ARGV[1]
if here == '' then
  here = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end
local epoch, run, offset = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'run', 'offset'))
if not epoch or run ~= here then
  epoch, offset = ARGV[2], 0
  redis.call('UNLINK', KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'run', here, 'offset', 0)
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
offset = tonumber(offset)
local since, events = tonumber(ARGV[5]), {}
if ARGV[4] == epoch and since < offset and offset - since <= tonumber(ARGV[6]) then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], (since + 1) .. '-0', '+', 'COUNT', ARGV[7])) do
    events[#events + 1] = tonumber(string.match(entry[1], '^%d+'))
    events[#events + 1] = entry[2][2]
  end
end
return {offset, epoch, events}
