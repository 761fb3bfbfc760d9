"""The scripts of the outbox: each is one atomic step. All its keys share one hash tag.

An endpoint has a stream that a consumer group reads (`to`), a sorted set of what waits for another try by the time of
that (`later`), a stream of dead letters and a hash of counts. `positions` says up to where each room's stream was
forwarded. Times are milliseconds of the server.
"""

from __future__ import annotations

GROUP = "deliver"

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
"""

# KEYS: endpoints, to. ARGV: id, limit, JSON. Keeps the `since` of a known one.
PUT = (
    _NOW
    + f"""
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not known and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
local body = cjson.decode(ARGV[3])
local since = text(now)
if known then since = text(cjson.decode(known).since) end
redis.call('HSET', KEYS[1], ARGV[1], string.sub(ARGV[3], 1, -2) .. ',"since":' .. since .. '}}')
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('XGROUP', 'CREATE', KEYS[2], '{GROUP}', '0', 'MKSTREAM') end
return 1
"""
)

# KEYS: leader. ARGV: name, ttl.
LEAD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: positions, then to, later, dead and counts of each endpoint. ARGV: room, expected position, new position, limit,
# dead letters kept, then per message: number of the endpoint (from 0), id, type, body.
FORWARD = (
    _NOW
    + """
local position = redis.call('HGET', KEYS[1], ARGV[1]) or '0-0'
if position ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
for i = 6, #ARGV, 4 do
  local at = 2 + 4 * tonumber(ARGV[i])
  local fields = {'id', ARGV[i + 1], 'type', ARGV[i + 2], 'body', ARGV[i + 3], 'at', text(now), 'tries', '0'}
  if redis.call('XLEN', KEYS[at]) + redis.call('ZCARD', KEYS[at + 1]) < tonumber(ARGV[4]) then
    redis.call('XADD', KEYS[at], '*', unpack(fields))
  else
    redis.call('XADD', KEYS[at + 2], 'MAXLEN', '~', ARGV[5], '*', 'reason', 'queue-full', unpack(fields))
    redis.call('HINCRBY', KEYS[at + 3], 'lost', 1)
  end
end
return 1
"""
)

# KEYS: to and later of each endpoint. Puts what is due back into the stream.
DUE = (
    _NOW
    + """
for i = 1, #KEYS, 2 do
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i + 1], '-inf', now, 'LIMIT', 0, 64)) do
    local entry = cjson.decode(member)
    redis.call('XADD', KEYS[i], '*', 'id', entry.id, 'type', entry.type, 'body', entry.body, 'at', entry.at,
      'tries', entry.tries)
    redis.call('ZREM', KEYS[i + 1], member)
  end
end
"""
)

# KEYS: to, counts. ARGV: entry, what is counted.
DONE = f"""
if redis.call('XACK', KEYS[1], '{GROUP}', ARGV[1]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[2], 'delivered', 1)
return 1
"""

# KEYS: to, later. ARGV: entry, wait in ms, JSON of the entry.
AGAIN = (
    _NOW
    + f"""
if redis.call('XACK', KEYS[1], '{GROUP}', ARGV[1]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), ARGV[3])
return 1
"""
)

# KEYS: to, dead, counts. ARGV: entry, dead letters kept, fields and values…
BURY = f"""
if redis.call('XACK', KEYS[1], '{GROUP}', ARGV[1]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, 3))
redis.call('HINCRBY', KEYS[3], 'given-up', 1)
return 1
"""

# KEYS: to, dead. ARGV: most at a time. Returns how many came back to life.
REVIVE = """
local found = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', ARGV[1])
for _, entry in ipairs(found) do
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'tries' then fields[i + 1] = '0' end
  end
  redis.call('XADD', KEYS[1], '*', unpack(fields))
  redis.call('XDEL', KEYS[2], entry[1])
end
return #found
"""
