import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Btf } from "../../../btf/Btf.ts"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import type { Json } from "../../../btf/render/RenderedValue.ts"
import {
  type ByteRun,
  encodeAt,
  encodeBytes,
  type EncodeError,
  encodeKey,
  valueAt
} from "../../../btf/render/ValueEncoder.ts"
import { lazily } from "../../../core/Lazily.ts"
import { formatReason } from "../../../core/Reason.ts"
import { GuestKernel, type GuestKernelService } from "../../../memory/GuestKernel.ts"
import { isIndexed, isPerCpu, MapType } from "../../MapType.ts"
import { GuestMaps, type ListedMap } from "../GuestMaps.ts"
import type { ValuePlaces } from "../walks/GuestMap.ts"
import { guardedRanges } from "./MapWriteGuards.ts"

/**
 * One value to set. Keys and values are the plain JSON that a dump prints; a value may leave out members of structs, which
 * stay as they are.
 *
 * @since 0.1.0
 * @category models
 */
export interface MapAssignment {
  /** A map's id or name. Default: the data section with the variable that `path` names. */
  readonly map?: string | undefined
  /** Not needed by maps of one element. */
  readonly key?: Json | undefined
  /** The part of the value, such as `g_stat.in.cpus[3]` (default, or if empty: all of it). */
  readonly path?: string | undefined
  readonly value: Json
  /** In per-CPU maps the CPU, or every possible one. */
  readonly cpu?: number | "all" | undefined
}

/**
 * The result of a write: the new value, and the one before.
 *
 * @since 0.1.0
 * @category models
 */
export interface MapWritten {
  readonly mapId: number
  readonly mapName: string
  readonly path: string
  /** Null: the map has one value for all. */
  readonly cpu: number | null
  /** The part of the value that `path` names. */
  readonly before: Json
  readonly after: Json
}

/**
 * Nothing was written: `assignment` is the one that could not be, `why` is a sentence.
 *
 * @since 0.1.0
 * @category errors
 */
export class MapWriteError extends Schema.TaggedError<MapWriteError>("ktstr/MapWriteError")("MapWriteError", {
  assignment: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `${this.assignment} could not be written; nothing was changed: ${this.why}`
  }
}

/**
 * Set values in the maps of a guest: all of them or, when any cannot be, none. Its programs see them when it goes on. Values
 * of arrays, hash maps and their per-CPU kinds can be set, and so global variables; those that the verifier treated as
 * constants (`.rodata`, frozen maps) cannot, nor locks, timers, kernel pointers and the like.
 * @param consistency what the guest does meanwhile. `frozen`: it stands still. `racing`: it runs (`Vm.memory`); then only
 * variables and array elements are written, which keep their place, while a hash map may give an element to another key; and
 * its programs may see a part of the values before the rest, or write over them.
 *
 * @since 0.1.0
 * @category writing
 */
export const writeMaps = (
  assignments: ReadonlyArray<MapAssignment>,
  consistency: "frozen" | "racing" = "frozen"
): Effect.Effect<ReadonlyArray<MapWritten>, MapWriteError, GuestKernel> =>
  Effect.flatMap(GuestKernel, (kernel) => writing(kernel, assignments, consistency)).pipe(
    Effect.withSpan("MapWrite.writeMaps")
  )

/** Bytes to write at an address. */
interface ByteChange {
  readonly address: bigint
  readonly bytes: Uint8Array
}

/** Does a value stay where it is as long as its map lives? */
const staysInPlace = (type: number): boolean => type === MapType.ARRAY || type === MapType.PERCPU_ARRAY

/** include/uapi/linux/bpf.h `BPF_F_RDONLY_PROG`, v6.12 */
const RDONLY_PROG = 1 << 7

const writing = (
  kernel: GuestKernelService,
  assignments: ReadonlyArray<MapAssignment>,
  consistency: "frozen" | "racing"
): Either.Either<ReadonlyArray<MapWritten>, MapWriteError> =>
  Either.gen(function*() {
    const { memory, space } = kernel
    if (consistency === "racing") space.flush()
    const maps = lazily(() => Either.mapLeft(GuestMaps.make(kernel), ({ message }) => message))
    const pieces: Array<ByteChange> = []
    const written: Array<MapWritten> = []
    for (const assignment of assignments) {
      const refused = (why: string) => new MapWriteError({ assignment: nameOf(assignment), why })
      if (!memory.writable) {
        return yield* Either.left(refused("this memory is read-only: give a VM, not an image"))
      }
      const done = yield* Either.mapLeft(
        Either.flatMap(maps(), (guest) => assign(kernel, guest, assignment, consistency, pieces)),
        refused
      )
      written.push(...done)
    }
    // Nothing is stored unless every page is there.
    for (const { address, bytes } of pieces) {
      if (space.read(address, bytes.length) === undefined) {
        return yield* Either.left(new MapWriteError({ assignment: "the value", why: space.faultText }))
      }
    }
    for (const { address, bytes } of pieces) {
      if (!space.write(address, bytes)) {
        return yield* Either.left(new MapWriteError({ assignment: "the value", why: space.faultText }))
      }
    }
    return written
  })

const nameOf = ({ key, map, path }: MapAssignment): string =>
  [map ?? "", key === undefined ? "" : `[${JSON.stringify(key)}]`, path === undefined || path === "" ? "" : `.${path}`]
    .join("").replace(/^\./, "") || "the value"

/** include/linux/bpf.h `struct bpf_map`, v5.6 and newer */
const frozenLayout = memoizeByBtf((btf) => layout(btf, "bpf_map", ["frozen"]))

/** Why a map must not be written; undefined: it may be. */
const closed = ({ btf, space }: GuestKernelService, { info, offset, page }: ListedMap): string | undefined => {
  if ((info.flags & RDONLY_PROG) !== 0) {
    return "it is read-only for programs: the verifier may have treated its values as constants"
  }
  const frozen = frozenLayout(btf)
  if (Either.isLeft(frozen)) return undefined
  if (!space.window(page, offset + frozen.right.at.frozen, 1)) return space.faultText
  return space.view.getUint8(space.at) === 0
    ? undefined
    : "it is frozen (BPF_MAP_FREEZE): the verifier may have treated its values as constants"
}

/** The maps of an id or name, or those whose data section has the variable. */
const mapsFor = (guest: GuestMaps, { map, path = "" }: MapAssignment): ReadonlyArray<ListedMap> =>
  guest.maps.items.filter((listed) => {
    const { id, name, valueTypeId } = listed.info
    if (map !== undefined) return String(id) === map || name === map
    const types = guest.types(listed)
    return types !== undefined && Either.isRight(types) && hasVariable(types.right, valueTypeId, path)
  })

const hasVariable = (btf: Btf, typeId: number, path: string): boolean => {
  const type = btf.type(typeId)
  return type?.kind === "DATASEC" && type.variables.some((variable) => {
    const name = btf.nameOf(variable.type)
    return name !== "" && path.startsWith(name) && /^([.[]|$)/.test(path.slice(name.length))
  })
}

const assign = (
  kernel: GuestKernelService,
  guest: GuestMaps,
  assignment: MapAssignment,
  consistency: "frozen" | "racing",
  pieces: Array<ByteChange>
): Either.Either<ReadonlyArray<MapWritten>, string> =>
  Either.gen(function*() {
    const { cpu, key, path = "", value } = assignment
    const found = mapsFor(guest, assignment)
    const [map] = found
    if (map === undefined) {
      return yield* Either.left(
        assignment.map === undefined ? "no map has a variable of that name" : "no such map"
      )
    }
    const { info, type } = map
    if (found.length > 1) {
      const all = found.map(({ info: { id, name } }) => `${id} (${name})`).join(", ")
      return yield* Either.left(`ambiguous: ${all}; give the id`)
    }
    const why = closed(kernel, map)
    if (why !== undefined) return yield* Either.left(why)
    const { find } = yield* Either.mapLeft(guest.open(map), formatReason)
    if (find === undefined) return yield* Either.left(`writing maps of type ${info.type} is not supported`)
    if (consistency === "racing" && !staysInPlace(type)) {
      return yield* Either.left("the guest runs, and may give an element of such a map to another key: freeze it first")
    }
    const read = guest.types(map)
    if (read !== undefined && Either.isLeft(read)) return yield* Either.left(formatReason(read.left))
    const types = read?.right
    if (isPerCpu(type) && kernel.perCpuProblem !== undefined) {
      return yield* Either.left(formatReason(kernel.perCpuProblem))
    }
    const copies = yield* Either.mapLeft(find(yield* keyBytes(map, types, key)), ({ text }) => text)
    const cpus = yield* cpusOf(map, copies, cpu)
    const typed = types !== undefined && info.valueTypeId !== 0 && types.sizeOf(info.valueTypeId) === info.valueSize
      ? types
      : undefined
    const written: Array<MapWritten> = []
    for (const copy of cpus) {
      const address = copies[copy]
      const bytes = address === undefined ? undefined : kernel.space.read(address, info.valueSize)
      if (address === undefined || bytes === undefined) {
        return yield* Either.left(address === undefined ? `CPU ${copy} is not possible` : kernel.space.faultText)
      }
      overlay(bytes, address, pieces)
      const before = bytes.slice()
      const runs = yield* Either.mapLeft(
        typed === undefined
          ? path === ""
            ? encodeBytes(value, bytes)
            : Either.left({ message: "its values have no type: give all bytes as hex" })
          : encodeAt(typed, info.valueTypeId, path, value, bytes),
        ({ message }) => message
      )
      if (typed !== undefined) yield* guarded(typed, info.valueTypeId, before, bytes)
      for (const { at, length } of runs) {
        pieces.push({ address: address + BigInt(at), bytes: bytes.slice(at, at + length) })
      }
      written.push({
        mapId: info.id,
        mapName: info.name,
        path,
        cpu: isPerCpu(type) ? copy : null,
        before: yield* shown(typed, info.valueTypeId, path, before),
        after: yield* shown(typed, info.valueTypeId, path, bytes)
      })
    }
    return written
  })

/** Apply earlier assignments, which are not in memory yet, to these bytes. */
const overlay = (bytes: Uint8Array, address: bigint, pieces: ReadonlyArray<ByteChange>): void => {
  for (const piece of pieces) {
    const at = Number(piece.address - address)
    if (at >= 0 && at + piece.bytes.length <= bytes.length) bytes.set(piece.bytes, at)
  }
}

const shown = (
  types: Btf | undefined,
  typeId: number,
  path: string,
  bytes: Uint8Array
): Either.Either<Json, string> =>
  types === undefined
    ? Either.right(Buffer.from(bytes).toString("hex"))
    : Either.mapLeft(valueAt(types, typeId, path, bytes), ({ message }) => message)

const keyBytes = (
  { info, type }: ListedMap,
  types: Btf | undefined,
  key: Json | undefined
): Either.Either<Uint8Array, string> => {
  const bytes = new Uint8Array(info.keySize)
  const encoded = (result: Either.Either<ReadonlyArray<ByteRun>, EncodeError>) =>
    Either.mapBoth(result, { onLeft: ({ keyMessage }) => keyMessage, onRight: () => bytes })
  if (isIndexed(type) && info.keySize === 4 && (key === undefined || typeof key === "number")) {
    if (key === undefined && info.maxEntries !== 1) return Either.left(`it has ${info.maxEntries} elements: give a key`)
    if (key !== undefined && !(Number.isInteger(key) && key >= 0 && key < 2 ** 32)) {
      return Either.left(`${key} is not an index`)
    }
    new DataView(bytes.buffer).setUint32(0, key ?? 0, true)
    return Either.right(bytes)
  }
  if (key === undefined) return Either.left("give a key")
  return types !== undefined && info.keyTypeId !== 0
    ? encoded(encodeKey(types, info.keyTypeId, key, bytes))
    : encoded(encodeBytes(key, bytes))
}

/** The CPUs whose copies are set. */
const cpusOf = (
  { type }: ListedMap,
  copies: ValuePlaces,
  cpu: MapAssignment["cpu"]
): Either.Either<ReadonlyArray<number>, string> => {
  const possible = copies.flatMap((copy, index) => copy === undefined ? [] : [index])
  if (!isPerCpu(type)) return cpu === undefined ? Either.right([0]) : Either.left("it has one value for all CPUs")
  if (cpu === undefined) return Either.left("each CPU has a value of its own: say which CPU, or all")
  if (cpu === "all") return Either.right(possible)
  return possible.includes(cpu) ? Either.right([cpu]) : Either.left(`CPU ${cpu} is not possible here`)
}

/** Locks, timers and kernel pointers must stay as they are. */
const guarded = (types: Btf, typeId: number, before: Uint8Array, after: Uint8Array): Either.Either<void, string> => {
  for (const { at, length, what } of guardedRanges(types, typeId)) {
    if (!Buffer.from(before.subarray(at, at + length)).equals(after.subarray(at, at + length))) {
      return Either.left(`it would change ${what}, which only the kernel may`)
    }
  }
  return Either.void
}
