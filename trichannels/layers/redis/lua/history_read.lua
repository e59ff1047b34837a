-- Where a group's history stands, and a page of what came after an offset.
--
-- KEYS: 1 meta, 2 log (see history_append.lua)
-- ARGV: 1 an epoch, should a new one begin, 2 seconds the meta is kept,
--       3 epoch that the reader knows ("" to be told the top only), 4 offset after which to read,
--       5 how many events may be missing at most, 6 how many a page may have
-- Returns offset, epoch, and a list: offset, payload, offset, payload, ... (empty where another epoch is known)

local NEW_EPOCH = ARGV[1]
-- include history
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
