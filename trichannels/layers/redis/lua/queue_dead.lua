-- Dead letters are worked on again, as if new and even if the queue is full, or are forgotten.
--
-- KEYS: 1 dead, 2 jobs (see queue_put)
-- ARGV: 1 "requeue" or "discard", 2 "up to" and 3 an entry, for the first 100 up to there; or 2 "these", 3... entries
-- Returns how many there were.

local found = {}
if ARGV[2] == 'up to' then
  found = redis.call('XRANGE', KEYS[1], '-', ARGV[3], 'COUNT', 100)
else
  for index = 3, #ARGV do
    found[#found + 1] = redis.call('XRANGE', KEYS[1], ARGV[index], ARGV[index])[1]
  end
end
for _, entry in ipairs(found) do
  if ARGV[1] == 'requeue' then
    local fields = {}
    for index = 1, #entry[2], 2 do
      local name, value = entry[2][index], entry[2][index + 1]
      if name ~= 'error' then
        fields[#fields + 1] = name
        fields[#fields + 1] = name == 'n' and '0' or value
      end
    end
    redis.call('XADD', KEYS[2], '*', unpack(fields))
  end
  redis.call('XDEL', KEYS[1], entry[1])
end
return #found
