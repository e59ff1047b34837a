-- A worker lives: what it has in hand is not to be given to another.
--
-- KEYS: 1 jobs (see queue_put)
-- ARGV: 1 consumer, 2... entries
-- Returns those of the entries that are not this worker's any more.

local lost = {}
for index = 2, #ARGV do
  local entry = ARGV[index]
  local pending = redis.pcall('XPENDING', KEYS[1], 'workers', entry, entry, 1, ARGV[1])
  if pending.err and not string.find(pending.err, 'NOGROUP', 1, true) then
    return pending
  end
  if pending.err or #pending == 0 then
    lost[#lost + 1] = entry
  else
    redis.call('XCLAIM', KEYS[1], 'workers', ARGV[1], 0, entry, 'JUSTID')
  end
end
return lost
