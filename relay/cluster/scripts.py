"""The scripts that make each change of a room one atomic step. All keys of a room share a hash tag, hence a slot.

A room is a hash (`document`, `version`), a stream whose ids are sync ids, and the viewers' presence: a sorted set of
identities by the server's time of their last heartbeat beside a hash of their data.
"""

from __future__ import annotations

# Appends events from ARGV[at] on (type, data, type, data, …) with ids greater than all in the stream, whatever the
# caller's clock says, and returns them. A stream never loses its last entry, so that entry bounds all ids.
_APPEND = """
local function append(key, ms, counter, keep, at)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
  if last[1] then
    local last_ms, last_counter = string.match(last[1][1], '(%d+)-(%d+)')
    last_ms, last_counter = tonumber(last_ms), tonumber(last_counter)
    if last_ms > ms or (last_ms == ms and last_counter >= counter) then
      ms, counter = last_ms, last_counter + 1
    end
  end
  local ids = {}
  for i = at, #ARGV, 2 do
    if counter > 65535 then ms, counter = ms + 1, 0 end
    local id = string.format('%.0f-%.0f', ms, counter)
    redis.call('XADD', key, 'MAXLEN', '~', keep, id, 'type', ARGV[i], 'data', ARGV[i + 1])
    ids[#ids + 1] = id
    counter = counter + 1
  end
  return ids
end
"""

# KEYS: room, events. ARGV: ms, counter, keep, document, events…
CREATE = (
    _APPEND
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists'} end
redis.call('HSET', KEYS[1], 'document', ARGV[4], 'version', 1)
redis.call('PERSIST', KEYS[2])
return {'ok', append(KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], 5)}
"""
)

# KEYS: room, events.
READ = """
local found = redis.call('HMGET', KEYS[1], 'document', 'version')
if not found[2] then return {'missing'} end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {'ok', found[1] or '', found[2], last[1] and last[1][1] or '0-0'}
"""

# KEYS: room, events. ARGV: ms, counter, keep, expected version, document, events…
WRITE = (
    _APPEND
    + """
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return {'missing'} end
if version ~= ARGV[4] then return {'stale'} end
redis.call('HSET', KEYS[1], 'document', ARGV[5])
redis.call('HINCRBY', KEYS[1], 'version', 1)
return {'ok', append(KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], 6)}
"""
)

# KEYS: what has to exist (room; events, for what is told of a room that is over), events. ARGV: ms, counter, keep,
# events… A stream that is about to go still goes: XADD leaves its expiry.
APPEND = (
    _APPEND
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing'} end
return {'ok', append(KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], 4)}
"""
)

# KEYS: room, events, heartbeats, viewers. ARGV: ms, counter, keep, tombstone seconds, events… The stream stays for a
# while, so that followers who are late or reconnecting still see how it ended.
DELETE = (
    _APPEND
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing'} end
local ids = append(KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], 5)
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return {'ok', ids}
"""
)

# KEYS: room, heartbeats, viewers. ARGV: identity, data, ttl seconds
PUT_VIEWER = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing'} end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], time[1] + time[2] / 1e6, ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], math.ceil(ARGV[3]) + 1)
redis.call('EXPIRE', KEYS[3], math.ceil(ARGV[3]) + 1)
return {'ok'}
"""

# KEYS: heartbeats, viewers. ARGV: ttl seconds, limit. Returns how many there are, then identity, data, …
VIEWERS = """
local time = redis.call('TIME')
local stale = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time[1] + time[2] / 1e6 - ARGV[1])
for i = 1, #stale do
  redis.call('ZREM', KEYS[1], stale[i])
  redis.call('HDEL', KEYS[2], stale[i])
end
local found = {redis.call('ZCARD', KEYS[1])}
local limit = tonumber(ARGV[2])
if limit > 0 then
  for _, identity in ipairs(redis.call('ZRANGE', KEYS[1], 0, limit - 1)) do
    found[#found + 1] = identity
    found[#found + 1] = redis.call('HGET', KEYS[2], identity) or '{}'
  end
end
return found
"""
