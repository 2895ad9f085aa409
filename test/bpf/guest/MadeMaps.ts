import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { GuestMaps } from "../../../src/bpf/guest/GuestMaps.ts"
import { decodeEntry, problemOf } from "../../../src/bpf/MapReader.ts"
import { MapType } from "../../../src/bpf/MapType.ts"
import { type Json, toJson } from "../../../src/btf/render/RenderedValue.ts"
import { formatReason } from "../../../src/core/Reason.ts"
import { GuestKernel } from "../../../src/memory/GuestKernel.ts"
import type { BlobWriter } from "../../btf/BlobWriter.ts"
import { MadeKernel } from "../../memory/MadeKernel.ts"
import { type DeclareStruct, MadeObjects, madeTypeBytes } from "../../memory/structs/MadeObjects.ts"

/** The structs of a kernel's maps and programs, smaller than real ones and in the same order; v6.12. */
const declareMaps = (blob: BlobWriter, struct: DeclareStruct) => {
  const byte = blob.int("unsigned char", 1)
  const int = blob.int("unsigned int", 4)
  const long = blob.int("unsigned long", 8)
  const text = (length: number) => blob.array(byte, length)
  const longs = (length: number) => blob.array(long, length)
  const root = struct("xarray", 16, [["xa_flags", 4, int], ["xa_head", 8, long]])
  struct("xa_node", 576, [["shift", 0, byte], ["slots", 40, longs(64)]])
  const idr = struct("idr", 24, [["idr_rt", 0, root], ["idr_base", 16, int], ["idr_next", 20, int]])
  struct("cpumask", 8, [["bits", 0, longs(1)]])
  struct("bpf_map", 72, [
    ["id", 0, int],
    ["map_type", 4, int],
    ["key_size", 8, int],
    ["value_size", 12, int],
    ["max_entries", 16, int],
    ["map_flags", 20, int],
    ["btf_key_type_id", 24, int],
    ["btf_value_type_id", 28, int],
    ["btf_vmlinux_value_type_id", 32, int],
    ["frozen", 36, byte],
    ["btf", 40, long],
    ["name", 48, text(16)]
  ])
  struct("btf", 96, [
    ["data", 0, long],
    ["data_size", 8, int],
    ["id", 12, int],
    ["base_btf", 16, long],
    ["kernel_btf", 24, byte],
    ["name", 25, text(64)]
  ])
  struct("bpf_array", 88, [["elem_size", 72, int], ["index_mask", 76, int], ["value", 88, text(0)]])
  struct("bpf_htab", 96, [["buckets", 72, long], ["n_buckets", 80, int], ["elem_size", 84, int]])
  const nullsHead = struct("hlist_nulls_head", 8, [["first", 0, long]])
  const nullsNode = struct("hlist_nulls_node", 16, [["next", 0, long], ["pprev", 8, long]])
  struct("bucket", 16, [["head", 0, nullsHead], ["raw_lock", 8, int]])
  struct("htab_elem", 48, [["hash_node", 0, nullsNode], ["hash", 40, int], ["key", 48, text(0)]])
  struct("lpm_trie", 80, [["root", 72, long]])
  struct("lpm_trie_node", 40, [["child", 16, longs(2)], ["prefixlen", 32, int], ["flags", 36, int], [
    "data",
    40,
    text(0)
  ]])
  struct("bpf_queue_stack", 88, [["head", 72, int], ["tail", 76, int], ["size", 80, int], ["elements", 88, text(0)]])
  struct("bpf_ringbuf_map", 80, [["rb", 72, long]])
  struct("bpf_ringbuf", 320, [
    ["mask", 0, long],
    ["consumer_pos", 64, long],
    ["producer_pos", 128, long],
    ["pending_pos", 136, long],
    ["data", 192, text(0)]
  ])
  struct("bpf_bloom_filter", 88, [["bitset_mask", 72, int], ["hash_seed", 76, int], ["nr_hash_funcs", 80, int], [
    "bitset",
    88,
    longs(0)
  ]])
  struct("bpf_stack_map", 96, [["n_buckets", 84, int], ["buckets", 96, longs(0)]])
  struct("stack_map_bucket", 24, [["nr", 12, int], ["data", 24, longs(0)]])
  struct("bpf_stack_build_id", 32, [["status", 0, int], ["build_id", 4, text(20)], ["offset", 24, long]])
  struct("bpf_arena", 96, [["user_vm_start", 72, long], ["kern_vm", 80, long]])
  struct("vm_struct", 24, [["addr", 8, long], ["size", 16, long]])
  const list = struct("list_head", 16, [["next", 0, long], ["prev", 8, long]])
  const head = struct("hlist_head", 8, [["first", 0, long]])
  const node = struct("hlist_node", 16, [["next", 0, long], ["pprev", 8, long]])
  const data = struct("bpf_local_storage_data", 8, [["smap", 0, long], ["data", 8, text(0)]])
  struct("bpf_local_storage_map", 96, [["buckets", 72, long], ["bucket_log", 80, int]])
  struct("bpf_local_storage_map_bucket", 16, [["list", 0, head], ["lock", 8, int]])
  struct("bpf_local_storage_elem", 48, [["map_node", 0, node], ["local_storage", 32, long], ["sdata", 40, data]])
  struct("bpf_local_storage", 16, [["owner", 8, long]])
  struct("task_struct", 32, [["pid", 0, int], ["tgid", 4, int], ["comm", 8, text(16)]])
  const tagged = text(8)
  struct("bpf_prog", 56, [
    ["type", 0, int],
    ["expected_attach_type", 4, int],
    ["aux", 8, long],
    ["len", 16, int],
    ["jited_len", 20, int],
    ["tag", 24, tagged],
    ["stats", 32, long]
  ])
  struct("bpf_prog_aux", 112, [
    ["id", 0, int],
    ["used_map_cnt", 4, int],
    ["used_maps", 8, long],
    ["name", 16, text(16)],
    ["func_cnt", 32, int],
    ["func_info_cnt", 36, int],
    ["func", 40, long],
    ["func_info", 48, long],
    ["btf", 56, long],
    ["verified_insns", 64, int]
  ])
  blob.enum32("bpf_map_type", Object.entries(MapType).map(([name, value]) => [`BPF_MAP_TYPE_${name}`, value]))
  blob.enum32("bpf_prog_type", [["BPF_PROG_TYPE_UNSPEC", 0], ["BPF_PROG_TYPE_TRACING", 26]])
  return { blob, struct, byte, int, long, text, longs, list, idr }
}

/** What more types are declared with: the writer, and the types that are there. */
export type MadeDeclarations = ReturnType<typeof declareMaps>

type DeclareMore = (declared: MadeDeclarations) => void

const nothingMore: DeclareMore = () => undefined
const written = new Map<DeclareMore, Uint8Array>()

/** The kernel's BTF, which is the same each time. */
const typesWith = (more: DeclareMore): Uint8Array => {
  const types = written.get(more) ?? madeTypeBytes((blob, struct) => more(declareMaps(blob, struct)))
  written.set(more, types)
  return types
}

export interface MadeMapsOptions {
  /** Declares more structs of the kernel. */
  readonly types?: DeclareMore
  /** Symbols for more of its image, and their sizes in bytes. */
  readonly objects?: { readonly [symbol: string]: number }
}

const DIRECT = 0xffff_8882_4000_0000n
/** CPU 1's copy of what is per CPU lies this many bytes behind CPU 0's. */
const COPY = 0x4000n

export interface MadeMapOf {
  readonly type: keyof typeof MapType
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
  readonly flags?: number
  readonly name?: string
  /** Bytes of the struct that begins with the map's `struct bpf_map`, and of what follows it. */
  readonly bytes: number
}

export interface MadeReading {
  readonly problem: string | null
  readonly entries: ReadonlyArray<readonly [key: Json, value: Json | ReadonlyArray<Json | undefined>]>
  readonly details: unknown
}

/**
 * A kernel of two CPUs with maps that a test puts into its memory by hand, where the kernel would: the walks read them as
 * they read a guest's. `PerCpu` pointers are those that `perCpu` gives.
 */
export class MadeMaps extends MadeObjects {
  private readonly listed: Array<bigint> = []

  constructor({ objects = {}, types = nothingMore }: MadeMapsOptions = {}) {
    super(new MadeKernel({ btf: typesWith(types), objects, directBase: DIRECT, cpuOffsets: [DIRECT, DIRECT + COPY] }))
  }

  /** The address of a symbol. */
  symbol(name: string): bigint {
    return this.made.symbols.get(name)!
  }

  /** Words of what a symbol names. */
  setAt(symbol: string, at: number, ...words: ReadonlyArray<bigint>): void {
    words.forEach((word, index) => this.made.set64(this.made.physical(symbol) + at + index * 8, word))
  }

  /** `bytes` of them are in the guest's memory, what follows them is not. */
  atTheEnd(bytes: number): bigint {
    return this.made.direct(MadeKernel.base + this.made.bytes.length - bytes)
  }

  /** A map that the kernel lists: its address. */
  map({ bytes, flags = 0, keySize, maxEntries, name = "made", type, valueSize }: MadeMapOf): bigint {
    const address = this.object(bytes)
    this.listed.push(address)
    const words = [this.listed.length, MapType[type], keySize, valueSize, maxEntries, flags]
    words.forEach((word, index) => this.set32(address + BigInt(index * 4), word))
    this.put(address + 48n, Buffer.from(name))
    this.list("map_idr", this.listed)
    return address
  }

  /** Objects with the ids from 1 on. */
  list(idr: "map_idr" | "prog_idr" | "link_idr", objects: ReadonlyArray<bigint>): void {
    const node = this.object(576)
    objects.forEach((object, index) => this.set64(node + 40n + BigInt((index + 1) * 8), object))
    this.made.set64(this.made.physical(idr) + 8, node | 2n)
  }

  /** A `__percpu` pointer, with the addresses of the CPUs' copies. */
  perCpu(bytes: number): { readonly pointer: bigint; readonly copies: readonly [bigint, bigint] } {
    const first = this.object(bytes)
    const second = first + COPY
    if (second + BigInt(bytes) > this.atTheEnd(0)) throw new Error("no room")
    return { pointer: first - DIRECT, copies: [first, second] }
  }

  get kernel(): typeof GuestKernel.Service {
    return Effect.runSync(GuestKernel.fromMemory(this.made.memory()))
  }

  /** Read the map with this id, as a dump would. */
  read(id = 1): MadeReading {
    const guest = Either.getOrThrow(GuestMaps.make(this.kernel))
    const listed = guest.maps.items.find(({ info }) => info.id === id)
    if (listed === undefined) return assert.fail(guest.maps.problems.map(formatReason).join("; "))
    const reader = guest.reader(listed.info)
    const walk = reader.walk?.() ?? null
    const entries: Array<MadeReading["entries"][number]> = []
    while (walk?.next() === true) {
      const entry = decodeEntry(reader, walk)
      const value = "value" in entry
        ? toJson(entry.value)
        : entry.cpus.map((cpu) => cpu === undefined ? cpu : toJson(cpu))
      entries.push([toJson(entry.key), value])
      assert.isBelow(entries.length, 10_000, "the walk does not end")
    }
    const problem = problemOf(reader, walk)
    return { problem: problem === null ? null : formatReason(problem), entries, details: reader.details }
  }
}

/** A `kernel` address as the messages have it. */
export const hex = (address: bigint): string => `0x${address.toString(16)}`
