"""The scripts of the directory of nodes. All its keys share a hash tag, hence a slot.

The records are a hash by node id, `alive` a sorted set of ids by the server's time of their expiry in milliseconds, and
`changes` a stream with one entry (`id`) for every record that came, changed or went: its last id is the list's version.
"""

from __future__ import annotations

_COMMON = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function tell(id)
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'id', id)
end

local function drop_expired()
  local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
  for i = 1, #gone do
    redis.call('ZREM', KEYS[2], gone[i])
    redis.call('HDEL', KEYS[1], gone[i])
    tell(gone[i])
  end
  -- The server's clock went back: nobody may live for as long as it went.
  local far = redis.call('ZRANGEBYSCORE', KEYS[2], now + 600000, '+inf')
  for i = 1, #far do redis.call('ZADD', KEYS[2], now + 10000, far[i]) end
end
"""

# KEYS: records, alive, changes. ARGV: id, record, milliseconds (at most 600000)
ANNOUNCE = (
    _COMMON
    + """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  tell(ARGV[1])
end
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
drop_expired()
"""
)

# KEYS: records, alive, changes. ARGV: id
WITHDRAW = (
    _COMMON
    + """
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then tell(ARGV[1]) end
"""
)

# KEYS: records, alive, changes. ARGV: version that the caller has. Returns version, `all` or `some`, then id, record,
# id, …; of `some`, which are those that changed since, one that went has an empty record.
LOOK = (
    _COMMON
    + """
drop_expired()
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
local found = {last[1] and last[1][1] or '', 'some'}
if found[1] == ARGV[1] and ARGV[1] ~= '' then return found end
if ARGV[1] ~= '' and redis.call('XRANGE', KEYS[3], ARGV[1], ARGV[1])[1] then
  local seen = {}
  for _, entry in ipairs(redis.call('XRANGE', KEYS[3], '(' .. ARGV[1], '+')) do
    local id = entry[2][2]
    if not seen[id] then
      seen[id] = true
      found[#found + 1] = id
      found[#found + 1] = redis.call('HGET', KEYS[1], id) or ''
    end
  end
  return found
end
found[2] = 'all'
local records = redis.call('HGETALL', KEYS[1])
for i = 1, #records do found[#found + 1] = records[i] end
return found
"""
)

# KEYS: place. ARGV: node, instead of, seconds. Returns where the room is now.
PLACE = """
local at = redis.call('GET', KEYS[1])
if not at or at == ARGV[2] then at = ARGV[1] end
redis.call('SET', KEYS[1], at, 'EX', ARGV[3])
return at
"""
