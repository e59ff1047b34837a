-- Included by the scripts of histories: where one stands, which begins anew with NEW_EPOCH if it has to.
-- include reign
local epoch, of, offset = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'reign', 'offset'))
if not epoch or of ~= reign then
  epoch, offset = NEW_EPOCH, 0
  redis.call('UNLINK', KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'reign', reign, 'offset', 0)
end
