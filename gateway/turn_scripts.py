"""The Lua scripts of a running turn: its log, its heartbeat, its stop, its take-over.

Owns the atomic steps on `tandem:turn:*`. Beginning and ending a turn belong to its session
(session_scripts.py). A turn has one `run`: a token of the gateway that runs it. Whoever writes
shows that token, so a gateway that lost the turn can write nothing more.
"""

from typing import Final

# Entries are numbered by their place in the list: what is there already is not written again,
# so a write whose reply came late, or never, is simply repeated.
# `gone`: the store lost the turn, or a part of its log (it was emptied, or restarted).
# KEYS: turn, turn lease, events
# ARGV: run, lease ms, record TTL s, number of the first entry, number of fields, field, value,
#       ..., entry, ...
APPEND: Final = """
local run = redis.call('HGET', KEYS[1], 'run')
if not run then return 'gone' end
if run ~= ARGV[1] then return 'fenced' end
local length = redis.call('LLEN', KEYS[3])
local first = tonumber(ARGV[4])
if first > length then return 'gone' end
local fields = tonumber(ARGV[5])
for i = 6, 4 + 2 * fields, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = 6 + 2 * fields, #ARGV do
  if first >= length then redis.call('RPUSH', KEYS[3], ARGV[i]) end
  first = first + 1
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[3], ARGV[3])
if redis.call('HEXISTS', KEYS[1], 'stop') == 1 then return 'stop' end
return 'written'
"""

# KEYS: turn, turn lease, events, session lease, session, watched
# ARGV: run, lease ms, record TTL s, turn id, session lease ms
HEARTBEAT: Final = """
local run = redis.call('HGET', KEYS[1], 'run')
if not run then return {'gone', 0} end
if run ~= ARGV[1] then return {'fenced', 0} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[3], ARGV[3])
local holder = redis.call('GET', KEYS[4])
if holder == ARGV[4] or (not holder and redis.call('HGET', KEYS[5], 'open') == ARGV[4]) then
  redis.call('SET', KEYS[4], ARGV[4], 'PX', ARGV[5])
end
local watched = redis.call('EXISTS', KEYS[6])
if redis.call('HEXISTS', KEYS[1], 'stop') == 1 then return {'stop', watched} end
return {'running', watched}
"""

# The turn goes on elsewhere: whoever looks finds it without a gateway, and this one can neither
# write nor keep it alive any more.
# KEYS: turn, turn lease. ARGV: run
LET_GO: Final = """
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'run', '')
redis.call('DEL', KEYS[2])
return 1
"""

# KEYS: turn, turn lease, events, watched
# ARGV: owner, number of the first entry wanted, ms for which the reader counts as watching
READ: Final = """
local turn = redis.call('HMGET', KEYS[1], 'owner', 'state', 'session', 'resumable')
if turn[1] ~= ARGV[1] then return {'missing'} end
if turn[2] == 'running' then redis.pcall('SET', KEYS[4], '1', 'PX', ARGV[3]) end
return {turn[2], redis.call('EXISTS', KEYS[2]), turn[3], turn[4],
  redis.call('LRANGE', KEYS[3], ARGV[2], -1)}
"""

# KEYS: turn, turn lease. ARGV: owner
STOP: Final = """
local turn = redis.call('HMGET', KEYS[1], 'owner', 'state', 'session')
if turn[1] ~= ARGV[1] then return {'missing'} end
if turn[2] == 'running' then redis.call('HSET', KEYS[1], 'stop', '1') end
return {turn[2], redis.call('EXISTS', KEYS[2]), turn[3]}
"""

# Takes a turn whose gateway is dead. It must still be the open turn of its session: were it not,
# the conversation has moved on without it and there is no place for its answer. A turn that had
# logged nothing is begun anew, so the conversation before it is given, too.
# KEYS: turn, turn lease, events, session lease, session, messages
# ARGV: run, gateway, turn id, lease ms, session lease ms, owner
TAKE_OVER: Final = """
local turn = redis.call('HMGET', KEYS[1], 'owner', 'state')
if turn[1] ~= ARGV[6] then return {'missing'} end
if turn[2] ~= 'running' then return {'ended'} end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'alive'} end
local holder = redis.call('GET', KEYS[4])
if (holder and holder ~= ARGV[3]) or redis.call('HGET', KEYS[5], 'open') ~= ARGV[3] then
  redis.call('HSET', KEYS[1], 'state', 'lost')
  return {'conflict'}
end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'gateway', ARGV[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[4])
redis.call('SET', KEYS[4], ARGV[3], 'PX', ARGV[5])
local entries = redis.call('LRANGE', KEYS[3], 0, -1)
local before = {}
if #entries == 0 then before = redis.call('LRANGE', KEYS[6], 0, -1) end
local system = redis.call('HGET', KEYS[5], 'system') or ''
return {'taken', redis.call('HGETALL', KEYS[1]), entries, system, before}
"""
