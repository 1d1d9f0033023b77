"""Commands whose replies have every shape that Redis has, for tests that compare what arrives with what was said."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import redis

COMMANDS = """
PING
ECHO hello
SET s one
SET empty ""
SET s two XX GET
GET s
GET none
APPEND s more
GETRANGE s 0 2
STRLEN s
INCR n
INCRBYFLOAT f 1.5
MSET a 1 b 2 c 3
MGET a none c
HSET h f1 v1 f2 v2
HGET h f1
HMGET h f1 none f2
HGETALL h
HKEYS h
HVALS h
HSCAN h 0
HRANDFIELD h 2 WITHVALUES
HINCRBY h n 5
RPUSH l a b c d
LRANGE l 0 -1
LPOP l 2
LPOS l d
BLPOP none l 1
LMPOP 2 none l LEFT COUNT 2
SADD set x y z
SCARD set
SISMEMBER set x
SMISMEMBER set x q
SINTER set set
ZADD z 1 one 2.5 two
ZRANGE z 0 -1 WITHSCORES
ZSCORE z two
ZPOPMIN z
GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
GEODIST g Palermo Catania
GEOPOS g Palermo none
GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHDIST
XADD x 1-1 f v g w
XADD x 2-1 f v2
XRANGE x - +
XREAD COUNT 2 STREAMS x 0
XGROUP CREATE x grp 0
XREADGROUP GROUP grp me COUNT 1 STREAMS x >
XPENDING x grp
XINFO STREAM x
BITFIELD bits SET u8 0 255 GET u8 0
PFADD hll a b c
PFCOUNT hll
SETBIT bits 7 1
TYPE l
OBJECT ENCODING s
TTL s
EXPIRE s 100
SORT set ALPHA
SCAN 0
KEYS s*
EVAL "return {1, 'two', {3, redis.status_reply('fine')}}" 0
EVAL "return redis.error_reply('MY own')" 0
EVAL "redis.setresp(3); return {map={a=1.5, b=true}}" 0
COMMAND INFO get
CONFIG GET maxmemory*
CLIENT GETNAME
ACL WHOAMI
LCS a b
MULTI
SET t 1
HGETALL h
GET s
EXEC
MULTI
SET t 2
NOSUCH
EXEC
WATCH t
UNWATCH
MULTI
DISCARD
SELECT 3
SET in3 x
SELECT 0
LPUSH s x
NOSUCH a b
GET
OBJECT HELP
FUNCTION LOAD "#!lua name=lib\\nredis.register_function('f', function(k, a) return a end)"
FCALL f 0 x y
FUNCTION LIST
SLOWLOG LEN
PUBLISH c m
MEMORY USAGE a
DEBUG JMAP
SWAPDB 0 3
FUNCTION FLUSH
FLUSHALL
"""


def commands() -> Iterator[list[str]]:
    for line in COMMANDS.strip().splitlines():
        yield [part.replace("\\n", "\n") for part in shlex.split(line)]


def replies(port: int, protocol: int) -> list[Any]:
    """What a client is told, in order; errors as their words."""
    found: list[Any] = []
    client = redis.Connection(host="127.0.0.1", port=port, protocol=protocol)
    client.connect()
    try:
        for command in commands():
            client.send_command(*command)
            try:
                found.append(client.read_response())
            except redis.ResponseError as error:
                found.append(f"{type(error).__name__}: {error}")
    finally:
        client.disconnect()
    return found
