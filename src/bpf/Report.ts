import * as Schema from "effect/Schema"
import { Reason } from "../core/Reason.ts"
import { MapInfo } from "./MapInfo.ts"

/**
 * A key or a value: plain JSON shaped by its BTF type. Integers are numbers when they fit a double, else decimal
 * strings; pointers `"0x…"`; enums their name; bytes without a type one hex string.
 *
 * @since 0.1.0
 * @category schemas
 */
export const PlainJson = Schema.Unknown.annotations({
  identifier: "PlainJson",
  description: "plain JSON by BTF type: integers as numbers when safe, else decimal strings; enums by name, or number "
    + "when they have none; pointers \"0x…\"; char arrays as strings; structs as objects with anonymous members "
    + "flattened; bytes without a type as one hex string"
})

/**
 * A map's state beyond its entries: a ring buffer's `size`, `consumer`, `producer` and, where the kernel has it,
 * `pending` (bytes; positions count up from 0); a queue's or stack's `elements` and their `head` and `tail`; a bloom
 * filter's `bits`, `bitsSet`, `hashFunctions`, `hashSeed`; an arena's `pages` at most, its `userAddress` and
 * `kernelAddress`; a struct_ops map's `struct`, `state`, `refcnt`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Details = Schema.Record({ key: Schema.String, value: PlainJson }).annotations({ identifier: "Details" })
/**
 * The type that the Schema `Details` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Details = typeof Details.Type

const keyBytes = Schema.optional(Schema.String).annotations({
  description: "all bytes of the key in hex; there where `key` does not show all"
})
const perCpuEntry = {
  key: PlainJson,
  keyBytes,
  cpus: Schema.Array(PlainJson),
  cpuBytes: Schema.optional(Schema.Array(Schema.NullOr(Schema.String))).annotations({
    description: "all bytes of a CPU's value in hex; null where `cpus` shows all; absent where it does of every CPU"
  })
}
const plainEntry = {
  key: PlainJson,
  keyBytes,
  value: PlainJson,
  valueBytes: Schema.optional(Schema.String).annotations({
    description: "all bytes of the value in hex; there where `value` does not show all"
  })
}

/**
 * One entry. Where bpf(2) has no key, there is one nevertheless: a queue's or stack's elements count the pops before them,
 * a ring buffer's records have their position, a bloom filter's 64-bit words their number, an arena's pages their address
 * for user space. A local storage's key is the owner: `{ pid, tgid, comm }`, `{ id, path }` of a cgroup, `{ inode, device }`,
 * or a socket. The value of a map that points at kernel objects describes the object: `{ id, name, type }` of a program or
 * map, `{ device, program }`, and so on. A ring buffer's record is `{ state, length, data }`. What such a description could
 * not read is `{ "$unreadable": why }`.
 *
 * `value`, or in per-CPU maps `cpus`, whose element n is CPU n's copy (null: no such CPU, or unreadable).
 *
 * Where the form of a key or value does not determine its bytes (padding that is not zero, bytes behind a NUL, a bool
 * beyond 1, NaN, -0, bits of no member), all its bytes are beside it in hex: `keyBytes`, `valueBytes`, `cpuBytes`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Entry = Schema.Union(
  // first: `PlainJson` takes a value that is not there, so the other would take these and drop `cpus`
  Schema.Struct(perCpuEntry),
  Schema.Struct(plainEntry)
).annotations({ identifier: "Entry" })

/**
 * `frozen`: read while its kernel stood still; `racing`: while it ran; `unseen`: this source cannot see the entries.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Consistency = Schema.Literal("frozen", "racing", "unseen").annotations({ identifier: "Consistency" })
/**
 * The type that the Schema `Consistency` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Consistency = typeof Consistency.Type

/**
 * A map with its entries. `truncated`: a limit cut them; `problem`: why entries, or parts of them, are missing, null when none is.
 *
 * @since 0.1.0
 * @category schemas
 */
export const MapDump = Schema.Struct({
  ...MapInfo.fields,
  details: Schema.NullOr(Details),
  consistency: Consistency,
  entries: Schema.Array(Entry),
  truncated: Schema.Boolean.annotations({ description: "a limit cut the entries off" }),
  problem: Schema.NullOr(Reason).annotations({
    description: "why entries, or parts of them, are missing; null: none is"
  })
}).annotations({ identifier: "MapDump" })

/**
 * A BPF program: what `prog_idr` says of it.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ProgramInfo = Schema.Struct({
  id: Schema.Int,
  name: Schema.String,
  type: Schema.String
}).annotations({ identifier: "ProgramInfo" })
/**
 * The type that the Schema `ProgramInfo` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type ProgramInfo = typeof ProgramInfo.Type

/**
 * Where the dump was read from.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Source = Schema.Union(
  Schema.Struct({ kind: Schema.Literal("vm"), engine: Schema.String, kernel: Schema.String }),
  Schema.Struct({ kind: Schema.Literal("image"), path: Schema.String }),
  Schema.Struct({ kind: Schema.Literal("qemu"), qemu: Schema.String, pid: Schema.NullOr(Schema.Int) }),
  Schema.Struct({ kind: Schema.Literal("live") })
).annotations({ identifier: "Source" })
/**
 * The type that the Schema `Source` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Source = typeof Source.Type

/**
 * The kernel that was read: `uname -r`, page-table levels, and how far KASLR moved its image (bytes, hex). The last two
 * are null of the running kernel, which bpf(2) does not tell.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Kernel = Schema.Struct({
  release: Schema.String,
  pageTableLevels: Schema.NullOr(Schema.Int),
  kaslrOffset: Schema.NullOr(Schema.String),
  possibleCpus: Schema.Int,
  boot: Schema.optional(Schema.NullOr(Schema.String)).annotations({
    description: "of each boot another; null: not known; absent in dumps of older versions"
  })
}).annotations({ identifier: "Kernel" })
/**
 * The type that the Schema `Kernel` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Kernel = typeof Kernel.Type

/**
 * How the kernel stood still: milliseconds from asking to every CPU stopped. Null of an image, and of the running kernel.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Freeze = Schema.Struct({
  at: Schema.String.annotations({ description: "wall-clock time of the host, ISO 8601" }),
  millis: Schema.Number,
  cpus: Schema.Int
}).annotations({ identifier: "Freeze" })
/**
 * The type that the Schema `Freeze` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Freeze = typeof Freeze.Type

/** The version of the dump document and of all JSON that begins with its header. 2: problems are `Reason`s, not text. */
export const DUMP_VERSION = 2

/**
 * The document of `ktstr dump --json`. Adding a field is compatible; renaming one or changing a unit raises `version`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const DumpDocument = Schema.Struct({
  schema: Schema.Literal("single", "dual", "degraded"),
  version: Schema.Literal(DUMP_VERSION),
  source: Source,
  kernel: Kernel,
  freeze: Schema.NullOr(Freeze),
  maps: Schema.Array(MapDump),
  programs: Schema.Array(ProgramInfo),
  problems: Schema.Array(Reason),
  sched: Schema.optional(Schema.Unknown).annotations({
    description: "the scheduler's state, as ktstr sched show --json has it: SchedDocument; absent where only some maps "
      + "were asked for, of a running kernel, and in dumps of older versions; what of it could not be read is among losses"
  }),
  losses: Schema.optional(Schema.Int).annotations({
    description: "how many parts could not be read whole (exit code 1); absent in dumps of older versions"
  })
}).annotations({ identifier: "DumpDocument" })
/**
 * The type that the Schema `DumpDocument` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type DumpDocument = typeof DumpDocument.Type

/**
 * The part of a dump before its maps.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Header = DumpDocument.pick("schema", "version", "source", "kernel", "freeze")
/**
 * The type that the Schema `Header` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Header = typeof Header.Type

/**
 * One line of `ktstr dump --ndjson`. Entries carry their map's id and name.
 *
 * @since 0.1.0
 * @category schemas
 */
export const DumpRecord = Schema.Union(
  Schema.Struct({ record: Schema.Literal("dump"), ...Header.fields }),
  Schema.Struct({
    record: Schema.Literal("map"),
    ...MapInfo.fields,
    details: Schema.NullOr(Details),
    consistency: Consistency
  }),
  Schema.Struct({
    record: Schema.Literal("entry"),
    id: Schema.Int,
    name: Schema.String,
    ...perCpuEntry
  }),
  Schema.Struct({
    record: Schema.Literal("entry"),
    id: Schema.Int,
    name: Schema.String,
    ...plainEntry
  }),
  Schema.Struct({
    record: Schema.Literal("mapEnd"),
    id: Schema.Int,
    name: Schema.String,
    entries: Schema.Int.annotations({ description: "how many were printed" }),
    truncated: Schema.Boolean,
    problem: Schema.NullOr(Reason)
  }),
  Schema.Struct({ record: Schema.Literal("program"), ...ProgramInfo.fields }),
  Schema.Struct({ record: Schema.Literal("problem"), problem: Reason }),
  Schema.Struct({
    record: Schema.Literal("end"),
    losses: Schema.Int.annotations({ description: "how many parts could not be read whole (exit code 1)" })
  })
).annotations({ identifier: "DumpRecord" })
