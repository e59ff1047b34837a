-- Included by scripts whose data must not be gone on with once it may lack something: the server's replication id is
-- another one after each start, and each time that it was made the master. What it has may then be an old snapshot, or
-- lack what had not come to the replica; and that has been told already.
local told = redis.pcall('INFO', 'replication')
local reign = type(told) == 'string' and string.match(told, 'master_replid:(%x+)')
if not reign then
  return redis.error_reply('NOREPLID histories and presence have to know when the server was started, or made the master, '
    .. 'and INFO replication does not tell: let the user run INFO')
end
