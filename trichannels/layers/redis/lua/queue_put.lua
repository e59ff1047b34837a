-- Put a job into a queue, now or later; into no queue that is full.
--
-- KEYS: 1 jobs (stream: fields id, at, n, p), 2 delayed (zset by due time: members "id at n p")
-- ARGV: 1 id, 2 capacity ("" for any), 3 milliseconds of delay, 4 payload
-- Returns 1, or 0 if the queue is full. What is being worked on counts, and so does what is delayed.
--
-- In all scripts of queues: "at" is when the job was sent, in ms since 1970, "n" how often it was delivered before, as
-- far as the stream does not count that itself, "p" the payload. The consumer group is "workers".

if ARGV[2] ~= '' and redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[2]) then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = string.format('%d', now)
if tonumber(ARGV[3]) > 0 then
  local due = string.format('%d', now + tonumber(ARGV[3]))
  redis.call('ZADD', KEYS[2], due, ARGV[1] .. ' ' .. at .. ' 0 ' .. ARGV[4])
else
  redis.call('XADD', KEYS[1], '*', 'id', ARGV[1], 'at', at, 'n', '0', 'p', ARGV[4])
end
return 1
