-- Publish many events: one answer for all. ARGV: channel, payload, channel, payload, ... Returns how many.
for at = 1, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[at], ARGV[at + 1])
end
return #ARGV / 2
