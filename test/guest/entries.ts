import { assert } from "@effect/vitest"
import type { MapInfo } from "../../src/bpf/MapInfo.ts"
import type { MapEntry } from "../../src/bpf/MapReader.ts"
import { type RenderedValue, toJson } from "../../src/btf/render/RenderedValue.ts"
import { NotPrinted, type PrintedEntry, type PrintedMap } from "../support/bpftool.ts"

/** Types of plain keys and values: bpftool prints them as we do. */
export const KEYED: ReadonlySet<string> = new Set([
  "array",
  "hash",
  "lru_hash",
  "percpu_array",
  "percpu_hash",
  "lru_percpu_hash",
  "lpm_trie"
])
/** Types of which bpf(2) gives the bytes of ids, indices or cookies. */
export const BY_BYTES: ReadonlySet<string> = new Set([
  "cgroup_storage",
  "percpu_cgroup_storage",
  "array_of_maps",
  "hash_of_maps",
  "prog_array",
  "devmap",
  "devmap_hash",
  "cpumap",
  "sockhash",
  "reuseport_sockarray"
])

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const plain = (value: RenderedValue | undefined) => value === undefined ? null : toJson(value)

/** An entry of ours in the shape of the printed ones. */
export const comparable = (entry: MapEntry) =>
  "cpus" in entry
    ? {
      keyHex: hexOf(entry.keyBytes),
      valuesHex: entry.cpuBytes.map((bytes) => hexOf(bytes!)),
      plain: { key: plain(entry.key), cpus: entry.cpus.map(plain) }
    }
    : {
      keyHex: hexOf(entry.keyBytes),
      valuesHex: [hexOf(entry.valueBytes)],
      plain: { key: plain(entry.key), value: plain(entry.value) }
    }

export const byKey = <A extends { readonly keyHex: string }>(entries: ReadonlyArray<A>): ReadonlyArray<A> =>
  [...entries].sort((a, b) => a.keyHex < b.keyHex ? -1 : 1)

/** What bpftool lists of a map. */
export const listed = (
  { btfId, flags, id, keySize, maxEntries, name, type, valueSize }: MapInfo
): PrintedMap => ({ id, name, type, flags, keySize, valueSize, maxEntries, btfId })

/**
 * The maps that `bpftool map list` printed. Since 6.18 the kernel does not write btf_id of a map without BTF into the struct
 * that it is given (kernel/bpf/syscall.c bpf_map_get_info_by_fd copies it in first), and bpftool gives it that of the map
 * before: such a number is left out where we say that there is none. What is dumped of the map, with types or without,
 * still tells who is right.
 */
export const withoutLeftovers = (
  theirs: ReadonlyArray<PrintedMap>,
  ours: ReadonlyArray<MapInfo>,
  release: string
): ReadonlyArray<PrintedMap> => {
  const [major, minor] = release.split(".").map(Number)
  const leavesOut = major > 6 || (major === 6 && minor >= 18)
  return theirs.map((map, index) =>
    leavesOut && ours.at(index)?.btfId === null && map.btfId === theirs.at(index - 1)?.btfId
      ? { ...map, btfId: null }
      : { ...map }
  )
}

/** Equal bytes, and equal plain JSON: both lists ordered by key. */
export const compareEntries = (
  info: MapInfo,
  ours: ReadonlyArray<ReturnType<typeof comparable>>,
  expected: ReadonlyArray<PrintedEntry>
): void => {
  const where = `map ${info.id} ${info.name} (${info.type})`
  assert.strictEqual(ours.length, expected.length, `${where}: number of entries`)
  for (const [index, theirs] of expected.entries()) {
    const entry = ours[index]
    const at = `${where}, key ${theirs.keyHex}`
    assert.strictEqual(entry.keyHex, theirs.keyHex, at)
    assert.deepStrictEqual(entry.valuesHex, [...theirs.valuesHex], at)
    // bpftool cannot print floating point at all; the bytes above still had to be equal.
    if (theirs.plain instanceof NotPrinted) assert.strictEqual(info.name, "array_reals", at)
    else assert.deepStrictEqual<unknown>(entry.plain, theirs.plain, at)
  }
}
