"""The Lua scripts of a session's turn, and how a script is run: with a deadline, and with Redis'
errors turned into one error of ours.

Owns the atomic steps on `tandem:session:*`: begin, commit, release, rename, delete.
Not here: what the steps mean to a caller (sessions.py), the log of a running turn
(turn_scripts.py).
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from gateway.errors import SessionStoreUnavailable

OPERATION_SECONDS: Final = 1.0
RETRY_AFTER_SECONDS: Final = 2.0

# KEYS: session, messages, session lease, turn, turn lease, turn events, owner's sessions
# ARGV: owner, turn id, run, now ms, session TTL s, session lease ms, turn lease ms, create (0/1),
#       session id, title, system, turn record TTL s, gateway, resumable (0/1), max turns,
#       max bytes, prompt bytes, request
BEGIN: Final = """
local owner, turn = ARGV[1], ARGV[2]
local known = redis.call('HMGET', KEYS[4], 'owner', 'session', 'state')
if known[1] and known[1] ~= owner then return {'taken'} end
if known[2] and known[2] ~= ARGV[9]
    and redis.call('EXISTS', 'tandem:session:' .. known[2]) == 1 then
  if ARGV[8] == '1' then return {'elsewhere', known[2]} end
  return {'taken'}
end
if ARGV[8] == '1' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return {'taken'} end
else
  if redis.call('HGET', KEYS[1], 'owner') ~= owner then return {'missing'} end
  local place = redis.call('HGET', KEYS[1], 't:' .. turn)
  if place then return {'done', redis.call('LINDEX', KEYS[2], place)} end
  local open = redis.call('HGET', KEYS[1], 'open')
  if open then
    local record = 'tandem:turn:' .. open
    local alive = redis.call('EXISTS', record .. ':lease') == 1
    if not alive and redis.call('HGET', record, 'state') == 'running' then
      return {'orphan', open}
    end
  end
  local wait = redis.call('PTTL', KEYS[3])
  if wait > 0 then return {'busy', redis.call('GET', KEYS[3]), wait} end
  local size = redis.call('HMGET', KEYS[1], 'turns', 'bytes')
  if tonumber(size[1] or 0) >= tonumber(ARGV[15]) then return {'full', 'turns'} end
  if tonumber(size[2] or 0) + tonumber(ARGV[17]) > tonumber(ARGV[16]) then
    return {'full', 'bytes'}
  end
end
redis.call('SET', KEYS[3], turn, 'PX', ARGV[6])
redis.call('DEL', KEYS[4], KEYS[6])
redis.call('HSET', KEYS[4], 'owner', owner, 'session', ARGV[9], 'gateway', ARGV[13],
  'state', 'running', 'run', ARGV[3], 'resumable', ARGV[14])
if ARGV[18] ~= '' then redis.call('HSET', KEYS[4], 'request', ARGV[18]) end
redis.call('EXPIRE', KEYS[4], ARGV[12])
redis.call('SET', KEYS[5], ARGV[3], 'PX', ARGV[7])
if ARGV[8] == '1' then
  redis.call('HSET', KEYS[1], 'owner', owner, 'title', ARGV[10], 'system', ARGV[11],
    'created_at', ARGV[4], 'updated_at', ARGV[4], 'turns', 0, 'bytes', 0)
  redis.call('ZADD', KEYS[7], ARGV[4], ARGV[9])
end
redis.call('HSET', KEYS[1], 'open', turn)
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('EXPIRE', KEYS[7], ARGV[5])
return {'ok', redis.call('HGET', KEYS[1], 'system') or '', redis.call('LRANGE', KEYS[2], 0, -1)}
"""

# KEYS: as BEGIN. ARGV: turn id, run, session id, user message, answer, now ms, session TTL s,
#       system, turn record TTL s, number of the log's last entry (-1: none is kept), last entry
# A repeat of a commit whose reply was late finds its turn there and changes nothing.
COMMIT: Final = """
local turn = ARGV[1]
if not redis.call('HGET', KEYS[1], 'owner') then return 'gone' end
if redis.call('HEXISTS', KEYS[1], 't:' .. turn) == 1 then return 'saved' end
if redis.call('HGET', KEYS[4], 'run') ~= ARGV[2] then return 'fenced' end
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= turn then return 'fenced' end
if redis.call('HGET', KEYS[1], 'open') ~= turn then return 'fenced' end
local place = redis.call('RPUSH', KEYS[2], ARGV[4], ARGV[5]) - 1
redis.call('HSET', KEYS[1], 't:' .. turn, place, 'updated_at', ARGV[6], 'system', ARGV[8])
redis.call('HINCRBY', KEYS[1], 'turns', 1)
redis.call('HINCRBY', KEYS[1], 'bytes', #ARGV[4] + #ARGV[5])
redis.call('HDEL', KEYS[1], 'open')
redis.call('ZADD', KEYS[7], ARGV[6], ARGV[3])
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[7]}) do redis.call('EXPIRE', key, ARGV[7]) end
redis.call('HSET', KEYS[4], 'state', 'done')
if redis.call('LLEN', KEYS[6]) == tonumber(ARGV[10]) then redis.call('RPUSH', KEYS[6], ARGV[11]) end
redis.call('EXPIRE', KEYS[4], ARGV[9])
redis.call('EXPIRE', KEYS[6], ARGV[9])
redis.call('DEL', KEYS[3], KEYS[5])
return 'saved'
"""

# A turn that ends with nothing to keep: the session is free again, and if this turn was to be
# its first, it goes.
# KEYS: as BEGIN. ARGV: turn id, run, session id, turn record TTL s, number of the last entry,
#       last entry
RELEASE: Final = """
local turn = ARGV[1]
if redis.call('HGET', KEYS[4], 'run') ~= ARGV[2] then return 'fenced' end
if redis.call('GET', KEYS[3]) == turn then redis.call('DEL', KEYS[3]) end
if redis.call('HGET', KEYS[1], 'open') == turn then
  redis.call('HDEL', KEYS[1], 'open')
  if redis.call('HGET', KEYS[1], 'turns') == '0' then
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('ZREM', KEYS[7], ARGV[3])
  end
end
redis.call('DEL', KEYS[5])
if tonumber(ARGV[5]) < 0 then
  redis.call('DEL', KEYS[4], KEYS[6])
  return 'released'
end
redis.call('HSET', KEYS[4], 'state', 'done')
if redis.call('LLEN', KEYS[6]) == tonumber(ARGV[5]) then redis.call('RPUSH', KEYS[6], ARGV[6]) end
redis.call('EXPIRE', KEYS[4], ARGV[4])
redis.call('EXPIRE', KEYS[6], ARGV[4])
return 'released'
"""

# KEYS: session, messages, owner's sessions. ARGV: owner, title, TTL s
RENAME: Final = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'title', ARGV[2])
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[3]) end
return 1
"""

# KEYS: session, messages, session lease, owner's sessions. ARGV: owner, session id
DELETE: Final = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[2])
return 1
"""

Value = str | bytes | int | float


class ScriptRunner:
    """Runs one script, or one bundle of commands, before the deadline.

    Redis away, slow, full (OOM), read-only or unable to save (MISCONF): the caller of the
    gateway can do the same about each of them, wait and try again, so each is the same error.
    """

    def __init__(self, redis: "Redis", deadline: float = OPERATION_SECONDS) -> None:
        self.redis = redis
        self.deadline = deadline

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Value]) -> Any:
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        async with self._in_time():
            try:
                answer = await self._call("EVALSHA", digest, keys, args)
            except NoScriptError:
                answer = await self._call("EVAL", script, keys, args)
        return answer

    async def pipeline(self, *commands: tuple[Value, ...]) -> list[Any]:
        """Together, but no transaction: a full Redis refuses to queue even a read in one."""
        async with self._in_time():
            async with self.redis.pipeline(transaction=False) as bundle:
                for command in commands:
                    bundle.execute_command(*command)
                answer: list[Any] = await bundle.execute()
        return answer

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncGenerator[None]:
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(self.deadline):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            raise store_unavailable() from error
        finally:
            # The client sends with asyncio.wait_for, which before Python 3.12 forgets a
            # cancellation that comes as the sending ends. A reader who left would be served on.
            if task is not None and task.cancelling() > before:
                raise asyncio.CancelledError

    async def quietly(self, *commands: tuple[Value, ...]) -> None:
        """Housekeeping that may as well fail: a store that takes no writes can still be read."""
        with contextlib.suppress(SessionStoreUnavailable):
            await self.pipeline(*commands)

    async def _call(self, verb: str, what: str, keys: Sequence[str], args: Sequence[Value]) -> Any:
        redis: Any = self.redis  # its command methods carry no types
        return await redis.execute_command(verb, what, len(keys), *keys, *args)


def store_unavailable() -> SessionStoreUnavailable:
    return SessionStoreUnavailable(
        "Conversations cannot be read or saved at the moment, because their store does not "
        "answer or takes no writes. Try again in a few seconds; /v1/chat/completions works "
        "without it.",
        code="session_store_unavailable",
        retry_after=RETRY_AFTER_SECONDS,
    )


def as_text(value: Any) -> str:
    """Redis gives bytes or str, depending on how its client was made; None counts as empty."""
    if isinstance(value, bytes):
        return value.decode()
    return "" if value is None else str(value)


def as_fields(flat: Any) -> dict[str, str]:
    """HGETALL's answer: a flat list from a script, a mapping from a command."""
    if isinstance(flat, dict):
        return {as_text(key): as_text(value) for key, value in flat.items()}
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {as_text(key): as_text(value) for key, value in pairs}
