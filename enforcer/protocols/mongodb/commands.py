"""Step 4 of 6, inspect: what a MongoDB command does, and to which collections.

Gets a command's message; hands on its name, its operation, the collections it touches, and where its values come from.
What is not in the tables is unknown, and so is whatever runs JavaScript. Source: MongoDB's reference of database
commands and of aggregation stages, 8.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.mongodb import bson
from enforcer.protocols.mongodb.bson import Element
from enforcer.protocols.mongodb.wire import OP_QUERY, Message

READ, WRITE, DDL, ADMIN, UNKNOWN = "read", "write", "ddl", "admin", "unknown"
CONNECTION: Final = ""
"""Of the connection itself: it touches nothing."""

_TABLE: Final = {
    CONNECTION: """abortTransaction authenticate buildInfo buildinfo commitTransaction connectionStatus endSessions
        getnonce hello isMaster ismaster isdbgrid logout ping refreshSessions saslContinue saslStart startSession
        whatsmyuri""",
    READ: """aggregate collStats collstats count dataSize dbHash dbStats dbstats distinct explain filemd5 find
        getMore killCursors listCollections listCommands listDatabases listIndexes listSearchIndexes
        releaseMemory serverStatus""",
    WRITE: "bulkWrite delete findAndModify findandmodify insert update",
    DDL: """cloneCollectionAsCapped collMod compactStructuredEncryptionData convertToCapped create createIndexes
        createSearchIndexes deleteIndexes drop dropDatabase dropIndexes dropSearchIndex refineCollectionShardKey
        renameCollection reIndex reshardCollection shardCollection updateSearchIndex""",
    ADMIN: """abortReshardCollection addShard addShardToZone analyze analyzeShardKey applyOps autoCompact balancerStart
        balancerStatus balancerStop balancerCollectionStatus cleanupOrphaned clearJumboFlag commitReshardCollection
        compact configureFailPoint configureQueryAnalyzer connPoolStats connPoolSync createRole createUser currentOp
        dropAllRolesFromDatabase dropAllUsersFromDatabase dropConnections dropRole dropUser enableSharding features
        flushRouterConfig fsync fsyncUnlock getAuditConfig getClusterParameter getCmdLineOpts getDefaultRWConcern getLog
        getParameter getShardMap getShardVersion grantPrivilegesToRole grantRolesToRole grantRolesToUser hostInfo
        invalidateUserCache killAllSessions killAllSessionsByPattern killOp killSessions listShards lockInfo logRotate
        mergeAllChunksOnShard mergeChunks moveChunk moveCollection movePrimary moveRange planCacheClear
        planCacheClearFilters planCacheListFilters planCacheSetFilter profile removeShard removeShardFromZone
        removeQuerySettings replSetAbortPrimaryCatchUp replSetFreeze replSetGetConfig replSetGetStatus replSetInitiate
        replSetMaintenance replSetReconfig replSetResizeOplog replSetStepDown replSetSyncFrom
        revokePrivilegesFromRole revokeRolesFromRole revokeRolesFromUser rolesInfo rotateCertificates rotateFTDC
        setAllowMigrations setAuditConfig setClusterParameter setDefaultRWConcern setFeatureCompatibilityVersion
        setIndexCommitQuorum setParameter setQuerySettings setUserWriteBlockMode shardingState shutdown split
        top transitionFromDedicatedConfigServer transitionToDedicatedConfigServer unsetSharding unshardCollection
        updateRole updateUser updateZoneKeyRange usersInfo validate validateDBMetadata""",
}
OPERATIONS: Final = {name: operation for operation, names in _TABLE.items() for name in names.split()}

HELLO: Final = frozenset(("hello", "isMaster", "ismaster"))
_NUMBERS: Final = frozenset((bson.INT32, bson.INT64, bson.DOUBLE, bson.BOOL, bson.STRING))
"""What stands after the names of commands that are of no collection."""
_WHOLE: Final = frozenset(("documents", "insert"))
"""Sections that hold data and no expressions."""
_SCRIPTS: Final = frozenset((b"$where", b"$function", b"$accumulator"))
_READS: Final = frozenset((b"$lookup", b"$graphLookup", b"$unionWith"))
_WRITES: Final = frozenset((b"$out", b"$merge"))
_UNCLEAR: Final = frozenset(
    (
        b"$replaceRoot",
        b"$replaceWith",
        b"$objectToArray",
        b"$arrayToObject",
        b"$getField",
        b"$mergeObjects",
        b"$reduce",
        b"$setField",
        b"$searchMeta",
    )
)
"""What may give values names that the pipeline does not spell out."""
_MAKING: Final = frozenset((b"$arrayToObject", b"$setField"))
"""Those of them that may make names of fields out of values."""
_META: Final = frozenset(("textScore", "searchScore", "vectorSearchScore", "geoNearDistance", "recordId", "randVal"))
"""What `$meta` may ask for that is no value of a document, as sort keys, index keys and highlights are."""
_OF_OTHERS: Final = frozenset(
    (b"$currentOp", b"$listSessions", b"$listLocalSessions", b"$planCacheStats", b"$queryStats")
)
"""Stages that tell what other clients asked."""
_WRAPPING: Final = frozenset((b"$facet", b"$changeStream"))
"""Stages whose results have documents of the collection below names of their own."""
_SHAPELESS: Final = frozenset((b"$match", b"$sort", b"$unwind", b"$unset", b"$limit", b"$skip", b"$sample", b"$count"))
"""Stages that give no value another name."""
_PLAIN_VARIABLES: Final = ("$$NOW", "$$CLUSTER_TIME", "$$REMOVE", "$$DESCEND", "$$PRUNE", "$$KEEP")


@dataclass(slots=True)
class Command:
    """`name`: its first field. `tables`: `db.collection`. `prefix`: the collection that its documents are from.
    `sources`: paths that other values than those of the same name may come from; None where that may be any.
    `foreign`: further collections that documents are from. `columns`: fields that it filters by, shows or sets.
    `makes_names`: names of fields in its answer may be values."""

    name: str
    database: str
    operation: str
    tables: list[str] = field(default_factory=list)
    prefix: str = ""
    sources: list[str] | None = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    makes_names: bool = False
    field_name: str = ""
    cursor: int = 0

    @property
    def of_connection(self) -> bool:
        return self.operation == CONNECTION


def command_of(message: Message) -> Command:
    """What the client's `message` asks for. Raises ProtocolError where it is ambiguous."""
    raw = message.raw
    fields: dict[bytes, Element] = {}
    for element in bson.elements(raw, message.body, message.end):
        if element.name in fields:
            raise ProtocolError(Side.CLIENT, "a command has a field twice")
        fields[element.name] = element
    if not fields:
        raise ProtocolError(Side.CLIENT, "a command without a name")
    if any(sequence.name.encode("utf-8", "backslashreplace") in fields for sequence in message.sequences):
        raise ProtocolError(Side.CLIENT, "a command has a field twice")
    name = next(iter(fields)).decode("utf-8", "backslashreplace")
    database = _database(message, fields)
    command = Command(name, database, OPERATIONS.get(name, UNKNOWN), prefix=f"{database}.{name}")
    if not command.of_connection:
        _Reading(message, command).read(fields)
    return command


def _database(message: Message, fields: dict[bytes, Element]) -> str:
    if message.code == OP_QUERY:
        return message.namespace.removesuffix(".$cmd")
    named = fields.get(b"$db")
    if named is None or named.kind != bson.STRING:
        raise ProtocolError(Side.CLIENT, "a command names no database")
    return bson.text(message.raw, named)


class _Reading:
    """Finds out what a command touches."""

    def __init__(self, message: Message, command: Command) -> None:
        self._raw = message.raw
        self._message = message
        self._command = command

    def read(self, fields: dict[bytes, Element]) -> None:
        command, raw = self._command, self._raw
        first = next(iter(fields.values()))
        collection = bson.text(raw, first)
        if command.name == "explain" and first.kind == bson.DOCUMENT:
            self._explained(first)
            return
        if command.name == "getMore":
            command.cursor = bson.number(raw, first) or 0
            named = fields.get(b"collection")
            collection = bson.text(raw, named) if named is not None else ""
        if command.name == "renameCollection":
            target = fields.get(b"to")
            command.tables += [collection, bson.text(raw, target) if target is not None else "*"]
        elif command.name == "dropDatabase":
            command.tables.append(f"{command.database}.*")
        elif command.name == "bulkWrite":
            self._namespaces(fields)
        elif collection and command.operation != ADMIN:
            command.prefix = f"{command.database}.{collection}"
            command.tables.append(command.prefix)
        elif command.name == "aggregate" or first.kind not in _NUMBERS:
            command.tables.append("*")  # of the database, or a collection by its UUID
        for other in (b"viewOn", b"toCollection"):
            if other in fields:
                command.tables.append(f"{command.database}.{bson.text(raw, fields[other])}")
        self._walk(fields)
        self._columns(fields)

    def _explained(self, inner: Element) -> None:
        """An explained command is planned and not carried out, or its writes are not: a read of what it names."""
        fields = {element.name: element for element in bson.elements(self._raw, inner.start, inner.end)}
        if fields:
            name = next(iter(fields)).decode("utf-8", "backslashreplace")
            self._command.name = name
            known = OPERATIONS.get(name, UNKNOWN)
            self.read(fields)
            self._command.name = "explain"
            if known not in (READ, WRITE) or self._command.operation == UNKNOWN:
                self._command.operation = UNKNOWN
            else:
                self._command.operation = READ

    def _namespaces(self, fields: dict[bytes, Element]) -> None:
        """bulkWrite: collections are named once, by number in what follows."""
        raw, found = self._raw, self._command.tables
        listed = fields.get(b"nsInfo")
        places = [place for one in self._message.sequences if one.name == "nsInfo" for place in one.documents]
        if listed is not None and listed.kind in bson.CONTAINERS:
            places += [one.start for one in bson.elements(raw, listed.start, listed.end) if one.kind == bson.DOCUMENT]
        for place in places:
            for element in bson.elements(raw, place, len(raw)):
                if element.name == b"ns":
                    found.append(bson.text(raw, element))
        if not found:
            found.append("*")

    def _walk(self, fields: dict[bytes, Element]) -> None:
        command = self._command
        for element in fields.values():
            if element.kind not in bson.CONTAINERS or element.name.decode("utf-8", "replace") in _WHOLE:
                continue
            if command.name == "aggregate" and element.name == b"pipeline":
                for stage in bson.elements(self._raw, element.start, element.end):
                    self._stage(stage)
            else:
                shaping = element.name in (b"projection", b"fields") or (
                    element.name == b"update" and element.kind == bson.ARRAY  # a pipeline, whose outcome is told
                )
                self._operators(element, shaping=shaping, depth=0)
        for sequence in self._message.sequences:
            if sequence.name in _WHOLE:
                continue
            for place in sequence.documents:
                whole = Element(bson.DOCUMENT, b"", place, place, sequence.end)
                self._operators(whole, shaping=False, depth=0)

    def _stage(self, stage: Element) -> None:
        if stage.kind != bson.DOCUMENT:
            return
        for element in bson.elements(self._raw, stage.start, stage.end):
            self._named(element)
            if element.name in _UNCLEAR:
                self._command.sources = None
            if element.kind in bson.CONTAINERS:
                self._operators(element, shaping=element.name not in _SHAPELESS, depth=1)
            elif element.kind == bson.STRING and element.name not in _SHAPELESS:
                self._reference(element)

    def _operators(self, container: Element, *, shaping: bool, depth: int) -> None:
        """Looks for what reads, writes or runs something wherever it stands."""
        if depth > bson.MAX_DEPTH:
            raise ProtocolError(Side.CLIENT, f"a command nests more than {bson.MAX_DEPTH} documents")
        for element in bson.elements(self._raw, container.start, container.end):
            self._named(element)
            if shaping and element.name in _UNCLEAR:
                self._command.sources = None
            if element.kind in bson.CONTAINERS:
                self._operators(element, shaping=shaping, depth=depth + 1)
            elif shaping and element.kind == bson.STRING:
                self._reference(element)

    def _named(self, element: Element) -> None:
        command, name = self._command, element.name
        if not name.startswith(b"$"):
            return
        command.makes_names |= name in _MAKING
        if name in _SCRIPTS:
            command.operation = UNKNOWN
        elif name in _OF_OTHERS and command.operation == READ:
            command.operation = ADMIN
        elif name == b"$meta" and bson.text(self._raw, element) not in _META:
            command.sources = None
        elif name in _WRITES:
            if command.operation == READ:
                command.operation = WRITE
            command.tables.append(self._target(element, (b"into", b"coll")))
        elif name in _READS:
            table = self._target(element, (b"from", b"coll"))
            if table:
                command.tables.append(table)
                command.foreign.append(table)
        elif name in _WRAPPING:
            command.foreign.append(command.prefix)

    def _target(self, element: Element, names: tuple[bytes, ...]) -> str:
        """`$out: "coll"`, `$out: {db, coll}`, `$merge: {into: "coll"}`, `$lookup: {from: "coll"}`; empty where a
        $lookup has documents of its own."""
        raw, database = self._raw, self._command.database
        if element.kind == bson.STRING:
            return f"{database}.{bson.text(raw, element)}"
        if element.kind != bson.DOCUMENT:
            return "*"
        fields = {one.name: one for one in bson.elements(raw, element.start, element.end)}
        other = fields.get(b"db")
        if other is not None:
            database = bson.text(raw, other) or "*"
        for name in names:
            named = fields.get(name)
            if named is not None and named.kind == bson.STRING:
                return f"{database}.{bson.text(raw, named)}"
            if named is not None:
                return self._target(named, (b"coll",))
        return "" if b"pipeline" in fields else "*"

    def _reference(self, element: Element) -> None:
        """`"$path"` in an expression: values may be given other names."""
        said, command = bson.text(self._raw, element), self._command
        if command.sources is None or not said.startswith("$"):
            return
        if said.startswith("$$"):
            if said not in _PLAIN_VARIABLES:
                command.sources = None
        elif said[1:] not in command.sources:
            command.sources.append(said[1:])

    def _columns(self, fields: dict[bytes, Element]) -> None:
        command, raw = self._command, self._raw
        found: dict[str, None] = {}
        for name in (b"filter", b"query", b"projection", b"fields", b"sort", b"update"):
            element = fields.get(name)
            if element is not None and element.kind == bson.DOCUMENT:
                found.update(dict.fromkeys(_paths(raw, element, 0)))
        key = fields.get(b"key")
        if command.name == "distinct" and key is not None:
            command.field_name = bson.text(raw, key)
            found[command.field_name] = None
        for listed in ("updates", "deletes"):
            for place in self._documents(listed, fields):
                for element in bson.elements(raw, place, len(raw)):
                    if element.name in (b"q", b"u") and element.kind == bson.DOCUMENT:
                        found.update(dict.fromkeys(_paths(raw, element, 0)))
        command.columns = [f"{command.prefix}.{path}" for path in found if path]

    def _documents(self, name: str, fields: dict[bytes, Element]) -> Iterator[int]:
        for sequence in self._message.sequences:
            if sequence.name == name:
                yield from sequence.documents
        listed = fields.get(name.encode())
        if listed is not None and listed.kind == bson.ARRAY:
            for element in bson.elements(self._raw, listed.start, listed.end):
                if element.kind == bson.DOCUMENT:
                    yield element.start


def _paths(raw: bytes, container: Element, depth: int) -> Iterator[str]:
    """The fields that a filter, a projection or an update names."""
    if depth > 20:  # past what people write; columns are for the record alone
        return
    for element in bson.elements(raw, container.start, container.end):
        if not element.name.startswith(b"$") and container.kind == bson.DOCUMENT:
            yield element.name.decode("utf-8", "backslashreplace")
        elif element.kind in bson.CONTAINERS:
            yield from _paths(raw, element, depth + 1)
