"""The scripts of leases. All keys of a room share its hash tag, hence a slot, and each script is one atomic step.

`leases` is a hash from publication to `epoch:until:ttl:node`, times in milliseconds of the server. `epoch` is the
room's last one: a new one is greater, and no less than the server's time, so that epochs also grow when the server
lost the last ones in a failover, or everything. `history` is a stream of what happened, by which anybody can check
afterwards that a publication never had two owners at once.
"""

from __future__ import annotations

KEEP_HISTORY = 5000
"""About how many entries of a room's history are kept."""
FORGET_MS = 24 * 3600 * 1000
"""A room whose leases nobody touched for so long leaves nothing behind."""

_COMMON = f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function text(number) return string.format('%.0f', number) end

-- Returns epoch, node and until of who holds a publication now, nil when nobody ever did or gave it back. After the
-- server's clock went back, until is no further away than the lease was long.
local function holder(publication)
  local found = redis.call('HGET', KEYS[1], publication)
  if not found then return nil end
  local epoch, till, ttl, node = string.match(found, '^(%d+):(%d+):(%d+):(.*)$')
  till, ttl = tonumber(till), tonumber(ttl)
  if till > now + ttl then
    till = now + ttl
    redis.call('HSET', KEYS[1], publication, epoch .. ':' .. text(till) .. ':' .. text(ttl) .. ':' .. node)
  end
  return epoch, node, till
end

local function hold(publication, epoch, ttl, node)
  local till = text(now + ttl)
  redis.call('HSET', KEYS[1], publication, epoch .. ':' .. till .. ':' .. text(ttl) .. ':' .. node)
  return till
end

local function tell(what, publication, node, epoch, till)
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', {KEEP_HISTORY}, '*', 'type', what, 'publication', publication,
    'node', node, 'epoch', epoch, 'at', text(now), 'until', till)
  for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], {FORGET_MS}) end
end
"""

# KEYS: leases, epoch, history. ARGV: publication, node, ttl in ms, epoch that is taken over or ''.
# Returns {'ok', epoch} or {'held', node, epoch}.
ACQUIRE = (
    _COMMON
    + """
local publication, node, ttl, over = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local epoch, owner, till = holder(publication)
local why = 'free'
if epoch and till > now then
  if owner ~= node and epoch ~= over then return {'held', owner, epoch} end
  why = owner == node and 'own' or 'handed-over'
elseif epoch then
  why = 'expired'
end
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local new = text(math.max(last + 1, now))
redis.call('SET', KEYS[2], new)
till = hold(publication, new, ttl, node)
tell('acquired:' .. why, publication, node, new, till)
return {'ok', new}
"""
)

# KEYS: leases, epoch, history. ARGV: node, ttl in ms, publication, epoch, publication, … Returns for each publication
# the owner's epoch, node and milliseconds left: the asker's own when renewed, '', '' and '0' when nobody has it.
RENEW = (
    _COMMON
    + """
local found = {}
for i = 3, #ARGV, 2 do
  local publication = ARGV[i]
  local epoch, owner, till = holder(publication)
  if epoch and epoch == ARGV[i + 1] and owner == ARGV[1] then
    till = hold(publication, epoch, tonumber(ARGV[2]), owner)
    tell('renewed', publication, owner, epoch, till)
    till = tonumber(till)
  elseif not epoch or till <= now then
    epoch, owner, till = '', '', now
  end
  found[#found + 1] = epoch
  found[#found + 1] = owner
  found[#found + 1] = text(till - now)
end
return found
"""
)

# KEYS: leases, epoch, history. ARGV: node, publication, epoch, publication, …
RELEASE = (
    _COMMON
    + """
for i = 2, #ARGV, 2 do
  local epoch, owner = holder(ARGV[i])
  if epoch and epoch == ARGV[i + 1] and owner == ARGV[1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    tell('released', ARGV[i], owner, epoch, text(now))
  end
end
"""
)

# KEYS: leases, epoch, history. Returns publication, epoch, node, milliseconds left, … of those that have not expired;
# those that did long ago, whose publication nobody wants any more, are dropped.
OWNERS = (
    _COMMON
    + """
local found = {}
for _, publication in ipairs(redis.call('HKEYS', KEYS[1])) do
  local epoch, owner, till = holder(publication)
  if till > now then
    for _, each in ipairs({publication, epoch, owner, text(till - now)}) do found[#found + 1] = each end
  elseif till < now - 3600000 then
    redis.call('HDEL', KEYS[1], publication)
  end
end
return found
"""
)
