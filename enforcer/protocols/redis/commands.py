"""Step 4 of 6, inspect: what each Redis command does, and to which keys.

Gets a command's arguments; hands on its name, its operation, its keys, and what they leave open. What is not in the
table is unknown. The table follows the flags and key specifications that Redis 7.0 states of itself (`COMMAND`), and
those of the hash and stream commands that 7.4 to 8 added; a test compares it with a server. Otherwise classed than
there: scripts, which may do anything; MIGRATE, which sends keys to another server; what only reports or sets up the
connection, which is a read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

CONNECTION, READ, WRITE, ADMIN, UNKNOWN = "", "read", "write", "admin", "unknown"

NO_KEYS: Final = ""
ANY_KEYS: Final = "?"
"""A command that reaches keys which it does not name."""

# Operation, where the keys stand, names. `1`: the first argument; `1-`: from there on; `1-/2`: every second;
# `1..-2`: up to the last but one; `#2`: the second argument says how many follow it.
_TABLE: Final[tuple[tuple[str, str, str], ...]] = (
    (
        READ,
        "1",
        """bitcount bitfield_ro bitpos dump expiretime geodist geohash geopos georadius_ro georadiusbymember_ro
        geosearch get getbit getrange hexists hexpiretime hget hgetall hkeys hlen hmget hpexpiretime hpttl
        hrandfield hscan hstrlen httl hvals lindex llen lpos lrange pexpiretime pttl scard sismember smembers
        smismember srandmember sscan strlen substr ttl type xlen xpending xrange xrevrange zcard zcount zlexcount
        zmscore zrandmember zrange zrangebylex zrangebyscore zrank zrevrange zrevrangebylex zrevrangebyscore
        zrevrank zscan zscore""",
    ),
    (READ, "1-", "exists mget pfcount sdiff sinter ssubscribe subscribe sunion sunsubscribe touch unsubscribe watch"),
    (READ, "1 2", "lcs"),
    (READ, "2", "memory|usage object|encoding object|freq object|idletime object|refcount"),
    (READ, "2", "xinfo|consumers xinfo|groups xinfo|stream"),
    (READ, "#1", "sintercard zdiff zinter zintercard zunion"),
    (READ, ANY_KEYS, "eval_ro evalsha_ro fcall_ro keys psubscribe pubsub|channels pubsub|shardchannels randomkey scan"),
    (READ, ANY_KEYS, "cluster|getkeysinslot function|dump"),
    (
        READ,
        NO_KEYS,
        """acl|cat acl|genpass acl|help acl|whoami cluster|countkeysinslot cluster|help cluster|info cluster|keyslot
        cluster|links cluster|myid cluster|myshardid cluster|nodes cluster|shards cluster|slots config|help
        dbsize discard echo exec function|help function|list function|stats info lastsave latency|help lolwut
        memory|doctor memory|help memory|malloc-stats memory|stats module|help multi object|help pubsub|help
        pubsub|numpat pubsub|numsub pubsub|shardnumsub punsubscribe role script|exists script|help slowlog|help
        time unwatch wait waitaof xgroup|help xinfo|help""",
    ),
    (
        CONNECTION,
        NO_KEYS,
        """asking auth client|caching client|getname client|getredir client|help client|id client|info
        client|maint_notifications client|no-touch client|reply client|setinfo client|setname client|tracking
        client|trackinginfo command command|count command|docs command|getkeys command|getkeysandflags
        command|help command|info command|list hello ping quit readonly readwrite reset select""",
    ),
    (
        WRITE,
        "1",
        """append bitfield decr decrby expire expireat geoadd getdel getex getset hdel hexpire hexpireat hgetdel
        hgetex hincrby hincrbyfloat hmset hpersist hpexpire hpexpireat hset hsetex hsetnx incr incrby incrbyfloat
        linsert lpop lpush lpushx lrem lset ltrim move persist pexpire pexpireat pfadd psetex publish restore
        restore-asking rpop rpush rpushx sadd set setbit setex setnx setrange spop spublish srem xack xackdel
        xadd xautoclaim xclaim xdel xdelex xsetid xtrim zadd zincrby zpopmax zpopmin zrem zremrangebylex
        zremrangebyrank zremrangebyscore""",
    ),
    (WRITE, "1 2", "blmove brpoplpush copy geosearchstore lmove rename renamenx rpoplpush smove zrangestore"),
    (WRITE, "1-", "del unlink"),
    (WRITE, "1-/2", "mset msetnx"),
    (WRITE, "1..-2", "blpop brpop bzpopmax bzpopmin"),
    (WRITE, "1 2-", "pfmerge sdiffstore sinterstore sunionstore"),
    (WRITE, "2-", "bitop"),
    (WRITE, "2", "xgroup|create xgroup|createconsumer xgroup|delconsumer xgroup|destroy xgroup|setid"),
    (WRITE, "#1", "lmpop zmpop"),
    (WRITE, "#2", "blmpop bzmpop"),
    (WRITE, "1 #2", "zdiffstore zinterstore zunionstore"),
    (WRITE, ANY_KEYS, "flushall flushdb function|delete function|flush function|load function|restore swapdb"),
    (UNKNOWN, "#2", "eval evalsha fcall"),
    (UNKNOWN, ANY_KEYS, "script|load"),
    (
        ADMIN,
        ANY_KEYS,
        """acl|deluser acl|dryrun acl|getuser acl|list acl|load acl|log acl|save acl|setuser acl|users bgrewriteaof
        bgsave client|kill client|list client|no-evict client|pause client|unblock client|unpause
        cluster|addslots cluster|addslotsrange cluster|bumpepoch cluster|count-failure-reports cluster|delslots
        cluster|delslotsrange cluster|failover cluster|flushslots cluster|forget cluster|meet cluster|replicas
        cluster|replicate cluster|reset cluster|saveconfig cluster|set-config-epoch cluster|setslot
        cluster|slaves config|get config|resetstat config|rewrite config|set debug failover function|kill
        latency|doctor latency|graph latency|histogram latency|history latency|latest latency|reset memory|purge
        module|list module|load module|loadex module|unload monitor pfselftest psync replconf replicaof save
        script|debug script|flush script|kill sentinel shutdown slaveof slowlog|get slowlog|len slowlog|reset
        sync""",
    ),
    (ADMIN, "2", "pfdebug"),
)

Keys = Callable[[list[bytes]], "list[bytes] | None"]
"""The keys among a command's arguments (its name is the first); None where they cannot be told."""


@dataclass(frozen=True, slots=True)
class Command:
    """`name`: `GET`, `CONFIG SET`. `words`: arguments that are its name. `operation`: empty where it is of the
    connection itself, and touches nothing. `keys`: those it names; `more`: it may reach others."""

    name: str
    words: int
    operation: str
    keys: tuple[bytes, ...]
    more: bool


def _number(text: bytes) -> int:
    """A count as Redis reads one; -1 where it is none."""
    return int(text) if text.isdigit() and len(text) < 10 else -1


def _part(word: str) -> Keys:
    """One word of a key specification."""
    if word.startswith("#"):
        at = int(word[1:])

        def counted(args: list[bytes]) -> list[bytes] | None:
            count = _number(args[at]) if len(args) > at else -1
            return args[at + 1 : at + 1 + count] if 0 <= count < len(args) - at else None

        return counted
    places, _, step = word.partition("/")
    if ".." in places:
        first, _, last = places.partition("..")
        window = slice(int(first), int(last) + 1)
    elif places.endswith("-"):
        window = slice(int(places[:-1]), None, int(step or 1))
    else:
        window = slice(int(places), int(places) + 1)
    return lambda args: args[window]


def _specified(specification: str) -> Keys:
    parts = [_part(word) for word in specification.split()]
    if len(parts) == 1:
        return parts[0]

    def together(args: list[bytes]) -> list[bytes] | None:
        found: list[bytes] = []
        for part in parts:
            keys = part(args)
            if keys is None:
                return None
            found += keys
        return found

    return together


def _streams(args: list[bytes]) -> list[bytes] | None:
    """XREAD, XREADGROUP: as many keys as ids follow STREAMS."""
    words = [arg.upper() for arg in args]
    start = words.index(b"STREAMS") + 1 if b"STREAMS" in words else 0
    rest = len(args) - start
    # The word may also be the name of a group or consumer.
    return args[start : start + rest // 2] if start and rest % 2 == 0 and words.count(b"STREAMS") == 1 else None


def _sort(args: list[bytes]) -> list[bytes] | None:
    """SORT: with BY and GET it reads keys that it makes of what it finds."""
    options = [arg.upper() for arg in args[2:]]
    if b"BY" in options or b"GET" in options:
        return None
    stored = [args[at + 3] for at, word in enumerate(options) if word == b"STORE" and at + 3 < len(args)]
    return [*args[1:2], *stored]


def _georadius(args: list[bytes]) -> list[bytes] | None:
    stored = [
        args[at + 1] for at, word in enumerate(args) if word.upper() in (b"STORE", b"STOREDIST") and at + 1 < len(args)
    ]
    return [*args[1:2], *stored]


def _migrated(args: list[bytes]) -> list[bytes] | None:
    words = [arg.upper() for arg in args]
    keys = args[words.index(b"KEYS", 4) + 1 :] if b"KEYS" in words[4:] else []
    return [*(key for key in args[3:4] if key), *keys]


def _table() -> dict[bytes, tuple[str, str, Keys | None]]:
    table: dict[bytes, tuple[str, str, Keys | None]] = {}
    for operation, specification, names in _TABLE:
        keys = None if specification in (NO_KEYS, ANY_KEYS) else _specified(specification)
        for name in names.split():
            table[name.upper().encode()] = operation, specification, keys
    for operation, keys, names in (
        (READ, _streams, "XREAD"),
        (WRITE, _streams, "XREADGROUP"),
        (READ, _sort, "SORT_RO"),
        (WRITE, _sort, "SORT"),
        (WRITE, _georadius, "GEORADIUS GEORADIUSBYMEMBER"),
        (ADMIN, _migrated, "MIGRATE"),
    ):
        for name in names.split():
            table[name.encode()] = operation, "", keys
    return table


COMMANDS: Final = _table()
"""By name in upper case, `CONFIG|SET`: operation, key specification, and what finds the keys where it names any."""

CONTAINERS: Final = frozenset(name.partition(b"|")[0] for name in COMMANDS if b"|" in name)
"""Commands whose second word is part of the name."""

NAME_LIMIT: Final = 64
"""Bytes of a command's name that are shown; the longest of Redis and its modules have 30."""


def command_of(args: list[bytes]) -> Command:
    """What the command `args` (at least its name) is."""
    name, words = args[0].upper(), 1
    if name in CONTAINERS and len(args) > 1:
        name, words = name + b"|" + args[1].upper(), 2
    known = COMMANDS.get(name)
    shown = name[:NAME_LIMIT].decode("ascii", "backslashreplace").replace("|", " ")
    if known is None:
        return Command(shown, words, UNKNOWN, (), more=True)
    operation, specification, find = known
    if find is None:
        return Command(shown, words, operation, (), more=specification == ANY_KEYS)
    keys = find(args)
    return Command(shown, words, operation, tuple(keys or ()), more=keys is None or operation == UNKNOWN)
