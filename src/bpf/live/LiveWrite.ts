import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import type { Btf } from "../../btf/Btf.ts"
import type { Json } from "../../btf/render/RenderedValue.ts"
import { encodeBytes, EncodeError, encodeKey, encodeValue, shownJson } from "../../btf/render/ValueEncoder.ts"
import { errnoName } from "../../core/Errors.ts"
import { formatReason } from "../../core/Reason.ts"
import type { MapNotFound } from "../MapAccessor.ts"
import { isIndexed, isPerCpu, MapType } from "../MapType.ts"
import { Errno } from "./calls/BpfAbi.ts"
import type { BpfCalls, UpdateMode } from "./calls/BpfCalls.ts"
import type { LiveBtf } from "./calls/LiveBtf.ts"
import { type LiveMap, liveTable } from "./LiveOpeners.ts"

/**
 * A map that was not written: `why` it was refused, as a sentence.
 *
 * @since 0.1.0
 * @category errors
 */
export class WriteRefused extends Schema.TaggedError<WriteRefused>("ktstr/WriteRefused")("WriteRefused", {
  id: Schema.Int,
  /** The name of the map. */
  map: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `map ${this.id} (${this.map}) was not written: ${this.why}`
  }
}

/**
 * A change of one entry. Keys and values are the plain JSON that a dump prints. What a value leaves out (members of a
 * struct, CPUs that are null) stays as it is; in an entry that is not there yet it is 0.
 *
 * @since 0.1.0
 * @category models
 */
export type MapWrite =
  | {
    readonly kind: "update"
    readonly key: Json
    /** In per-CPU maps an array by CPU. */
    readonly value: Json
    /** `create`: only if it is not there; `existing`: only if it is. */
    readonly mode: UpdateMode
  }
  | { readonly kind: "delete"; readonly key: Json }

/**
 * A write to a map of this host.
 *
 * @since 0.1.0
 * @category models
 */
export type LiveWrite = Effect.Effect<void, WriteRefused | EncodeError | MapNotFound>

/** Types whose keys and values are plain bytes. */
const PLAIN: ReadonlySet<number> = new Set([
  MapType.HASH,
  MapType.ARRAY,
  MapType.PERCPU_HASH,
  MapType.PERCPU_ARRAY,
  MapType.LRU_HASH,
  MapType.LRU_PERCPU_HASH,
  MapType.LPM_TRIE,
  MapType.CGROUP_STORAGE,
  MapType.PERCPU_CGROUP_STORAGE
])

/** Write an entry of a map that is held open. */
export const writerOf = (
  map: LiveMap,
  calls: BpfCalls,
  btf: LiveBtf,
  possibleCpus: ReadonlyArray<number>,
  change: MapWrite
): LiveWrite =>
  Effect.gen(function*() {
    const { fd, info } = map
    const refused = (why: string) => new WriteRefused({ id: info.id, map: info.name, why })
    const closed = closedTo(map)
    if (closed !== undefined) return yield* refused(closed)
    const types = info.btfId === null
      ? undefined
      : yield* Either.mapLeft(btf.byId(info.btfId), (reason) => refused(formatReason(reason)))
    const key = calls.buffer(info.keySize)
    const keyBytes = key.bytes.subarray(0, info.keySize)
    yield* Either.mapLeft(
      types !== undefined && info.keyTypeId !== 0
        ? encodeKey(types, info.keyTypeId, change.key, keyBytes)
        : encodeInto(types, 0, isIndexed(map.type), change.key, keyBytes),
      ({ keyMessage }) => refused(keyMessage)
    )
    if (change.kind === "delete") {
      const result = calls.delete(fd, key)
      return result < 0 ? yield* refused(reasonOf(-result, "delete", change.key)) : undefined
    }
    const table = liveTable(fd, info, isPerCpu(map.type) ? possibleCpus : null)
    const value = calls.buffer(table.stride)
    const present = calls.lookup(fd, key, value)
    if (present < 0 && present !== -Errno.ENOENT) {
      return yield* refused(`its current value cannot be read: ${errnoName(-present)}`)
    }
    const part = (at: number) => value.bytes.subarray(at, at + info.valueSize)
    if (table.copies === null) {
      yield* encodeInto(types, info.valueTypeId, false, change.value, part(0))
    } else {
      const { value: given } = change
      if (!Array.isArray(given) || given.length !== table.copies.length) {
        return yield* refused(
          `its value must be an array of ${table.copies.length}, one element per CPU (null: unchanged)`
        )
      }
      for (const [cpu, at] of table.copies.entries()) {
        if (given[cpu] === null) continue
        if (at < 0) return yield* refused(`CPU ${cpu} cannot exist on this machine: give null for it`)
        yield* encodeInto(types, info.valueTypeId, false, given[cpu], part(at))
      }
    }
    const result = calls.update(fd, key, value, change.mode)
    if (result < 0) return yield* refused(reasonOf(-result, change.mode, change.key))
  })

/** A key or value as its type says; without one an array's index, or the bytes as one hex string. */
const encodeInto = (
  types: Btf | undefined,
  typeId: number,
  indexed: boolean,
  json: Json,
  into: Uint8Array
): Either.Either<unknown, EncodeError> => {
  if (types !== undefined && typeId !== 0) return encodeValue(types, typeId, json, into)
  if (indexed && into.length === 4) {
    const index = typeof json === "string" && /^\d+$/.test(json) ? Number(json) : json
    if (typeof index !== "number" || !Number.isInteger(index) || index < 0 || index > 0xffff_ffff) {
      return Either.left(new EncodeError({ path: "", expected: "an index", given: shownJson(json) }))
    }
    new DataView(into.buffer, into.byteOffset, 4).setUint32(0, index, true)
    return Either.void
  }
  return encodeBytes(json, into)
}

/** Why the map cannot be written at all; undefined: it can. */
const closedTo = ({ fd, info, type }: LiveMap): string | undefined => {
  if (!PLAIN.has(type)) return `the values of ${info.type} maps are not plain bytes that user space may write`
  // Flags that made a map read-only for its creator's descriptor (BPF_F_RDONLY) are not the map's own: they do not count.
  const frozen = /^frozen:\s*1/m.test(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))
  return frozen ? "it is read-only: its creator froze it for good (BPF_MAP_FREEZE)" : undefined
}

const reasonOf = (errno: number, mode: UpdateMode | "delete", key: Json): string => {
  const shown = JSON.stringify(key)
  switch (errno) {
    case Errno.EEXIST:
      return `it already has an entry ${shown} (mode: create)`
    case Errno.ENOENT:
      return `it has no entry ${shown}${mode === "existing" ? " (mode: existing)" : ""}`
    case Errno.E2BIG:
      return mode === "existing" ? `it has no element ${shown}` : "it is full, or has no such index"
    case Errno.EPERM:
      return "EPERM: it was frozen meanwhile"
    default:
      return `${errnoName(errno)}${mode === "delete" ? ": entries of such maps cannot be deleted" : ""}`
  }
}
