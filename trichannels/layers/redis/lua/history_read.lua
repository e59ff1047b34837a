-- Where a group's history stands, and a page of what came after an offset.
--
-- KEYS: 1 meta, 2 log (see history_append.lua)
-- ARGV: 1 an epoch, should a new one begin, 2 seconds the meta is kept,
--       3 epoch that the reader knows ("" to be told the top only), 4 offset after which to read,
--       5 how many events may be missing at most, 6 how many a page may have
-- Returns offset, epoch, and a list: offset, payload, offset, payload, ... (empty where another epoch is known)

local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if not reign then
  return redis.error_reply('NOREPLID INFO replication tells no master_replid: no history can be kept here')
end
local epoch, of, offset = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'reign', 'offset'))
if not epoch or of ~= reign then
  epoch, offset = ARGV[1], 0
  redis.call('UNLINK', KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'reign', reign, 'offset', 0)
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
offset = tonumber(offset)
local since, events = tonumber(ARGV[4]), {}
if ARGV[3] == epoch and since < offset and offset - since <= tonumber(ARGV[5]) then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], (since + 1) .. '-0', '+', 'COUNT', ARGV[6])) do
    events[#events + 1] = tonumber(string.match(entry[1], '^%d+'))
    events[#events + 1] = entry[2][2]
  end
end
return {offset, epoch, events}
