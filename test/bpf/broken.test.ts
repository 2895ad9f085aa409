import { assert, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import { readFileSync } from "node:fs"
import { GuestMaps } from "../../src/bpf/guest/GuestMaps.ts"
import { decodeEntry, problemOf } from "../../src/bpf/MapReader.ts"
import { layout } from "../../src/btf/Layout.ts"
import { toJson } from "../../src/btf/render/RenderedValue.ts"
import { kvaFrom } from "../../src/core/Address.ts"
import { formatReason } from "../../src/core/Reason.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { guestImage } from "../support/image.ts"

/** A kernel in memory that a test may damage. */
class Guest extends Context.Tag("test/Guest")<Guest, {
  readonly kernel: typeof GuestKernel.Service
  readonly view: DataView
}>() {
  static readonly layer = Layer.effect(
    Guest,
    Effect.gen(function*() {
      const bytes = new Uint8Array(readFileSync(yield* guestImage))
      const kernel = yield* GuestKernel.fromMemory(new GuestMemory([{ start: 0, bytes }]))
      return { kernel, view: new DataView(bytes.buffer) }
    })
  )
}

/** What a test does: look up where things are, then write to them. */
interface Tools {
  /** The address of the map. */
  readonly map: bigint
  /** The offset of a member, by its path. */
  readonly at: (struct: string, member: string) => bigint
  readonly read: (address: bigint) => bigint
  readonly write: (address: bigint, value: bigint, bytes?: 4 | 8) => void
}

/** Damage the map of that name, read it, and restore it: its problem, its details and its entries as JSON. */
const reading = (name: string, damage: (tools: Tools) => void) =>
  Effect.gen(function*() {
    const { kernel, view } = yield* Guest
    const before: Array<readonly [pa: number, value: bigint]> = []
    const found = Either.getOrThrow(GuestMaps.make(kernel)).maps.items.find(({ info }) => info.name === name)!
    const pa = (address: bigint): number => {
      const pa = kernel.space.translate(address)
      assert.isAtLeast(pa, 0, kernel.space.faultText)
      return pa
    }
    damage({
      map: kvaFrom(found.page, found.offset),
      at: (struct, member) => BigInt(Either.getOrThrow(layout(kernel.btf, struct, [member])).at[member]),
      read: (address) => view.getBigUint64(pa(address), true),
      write: (address, value, bytes = 8) => {
        before.push([pa(address), view.getBigUint64(pa(address), true)])
        if (bytes === 8) view.setBigUint64(pa(address), value, true)
        else view.setUint32(pa(address), Number(value), true)
      }
    })
    const guest = Either.getOrThrow(GuestMaps.make(kernel))
    const info = guest.maps.items.find(({ info }) => info.id === found.info.id)!.info
    const reader = guest.reader(info)
    const walk = reader.walk?.() ?? null
    const entries = []
    while (walk?.next() === true) {
      const entry = decodeEntry(reader, walk)
      entries.push([toJson(entry.key), "value" in entry ? toJson(entry.value) : entry.cpus.length] as const)
    }
    for (const [at, value] of before.toReversed()) view.setBigUint64(at, value, true)
    const problem = problemOf(reader, walk)
    return { problem: problem && formatReason(problem), consistency: reader.consistency, entries }
  })

const NOWHERE = 0xffff_dead_beef_0000n

layer(Guest.layer, { timeout: "3 minutes" })("a broken map says what is wrong, and shows the rest", (it) => {
  it.effect("a trie that leads back to its root", () =>
    Effect.gen(function*() {
      const whole = yield* reading("lpm_many", () => {})
      const { entries, problem } = yield* reading("lpm_many", ({ at, map, read, write }) => {
        const root = read(map + at("lpm_trie", "root"))
        write(root + at("lpm_trie_node", "child"), root)
      })
      assert.strictEqual(whole.problem, null)
      assert.match(problem!, /^corrupted: a node of prefix length 0 where 1 to 32 can be; left$/)
      assert.isAbove(entries.length, 100)
      assert.isBelow(entries.length, whole.entries.length)
    }))
  it.effect("a queue whose positions are outside", () =>
    Effect.gen(function*() {
      const { consistency, entries, problem } = yield* reading("queue_wrapped", ({ at, map, write }) => {
        write(map + at("bpf_queue_stack", "head"), 77n, 4)
      })
      assert.deepStrictEqual([problem, consistency, entries], [
        "corrupted: head 77, tail 3 of 6 slots for 5 elements",
        "unseen",
        []
      ])
    }))
  it.effect("a ring whose record is longer than what was produced", () =>
    Effect.gen(function*() {
      const { entries, problem } = yield* reading("user_ringbuf", ({ at, map, read, write }) => {
        write(read(map + at("bpf_ringbuf_map", "rb")) + at("bpf_ringbuf", "data") + 16n, 0x3fff_ffffn, 4)
      })
      assert.strictEqual(problem, "corrupted: record at 16: has 1073741823 bytes, 32 are left; walk ended")
      assert.deepStrictEqual(entries, [[0, { state: "committed", length: 5, data: "a0a0a0a0a0" }]])
    }))
  it.effect("a ring whose consumer is ahead", () =>
    Effect.gen(function*() {
      const { entries, problem } = yield* reading("user_ringbuf", ({ at, map, read, write }) => {
        write(read(map + at("bpf_ringbuf_map", "rb")) + at("bpf_ringbuf", "consumer_pos"), 4096n)
      })
      assert.strictEqual(problem, "corrupted: consumer at 4096, producer at 56 of a ring of 4096 bytes, made as 4096")
      assert.deepStrictEqual(entries, [])
    }))
  it.effect("a bloom filter of no power of two", () =>
    Effect.gen(function*() {
      const { problem } = yield* reading("bloom_known", ({ at, map, write }) => {
        write(map + at("bpf_bloom_filter", "bitset_mask"), 8190n, 4)
      })
      assert.strictEqual(problem, "corrupted: a set of 8191 bits for 1000 entries, 3 functions")
    }))
  it.effect("a stack with more frames than there is room for", () =>
    Effect.gen(function*() {
      const { entries, problem } = yield* reading("stack_traces", ({ at, map, read, write }) => {
        const buckets = map + at("bpf_stack_map", "buckets")
        const bucket = Array.from({ length: 32 }, (_, index) => read(buckets + BigInt(index * 8))).find((b) => b !== 0n)
        write(bucket! + at("stack_map_bucket", "nr"), 1000n, 4)
      })
      assert.match(problem!, /^corrupted: entry \d+: has 8000 bytes, room for 80$/)
      assert.strictEqual(Array(entries[0][1]).flat().length, 10)
    }))
  it.effect("a slot that points nowhere", () =>
    Effect.gen(function*() {
      const { entries, problem } = yield* reading("prog_array", ({ at, map, write }) => {
        write(map + at("bpf_array", "value") + 8n, NOWHERE)
      })
      assert.strictEqual(problem, "unreadable: entry 1: 0xffffdeadbeef0000 is not mapped")
      assert.deepStrictEqual(entries.map(([key]) => key), [3])
    }))
  it.effect("an object whose name cannot be read", () =>
    Effect.gen(function*() {
      const { entries, problem } = yield* reading("cgroup_array", ({ at, map, read, write }) => {
        const cgroup = read(map + at("bpf_array", "value") + 8n)
        write(read(cgroup + at("cgroup", "kn")) + at("kernfs_node", "name"), NOWHERE)
      })
      assert.strictEqual(problem, "unreadable: inside an entry: 0xffffdeadbeef0000 is not mapped")
      const [[, root], [, inner]] = entries
      assert.deepStrictEqual(root, { id: 1, path: "/" })
      assert.deepInclude(inner, { path: { $unreadable: "0xffffdeadbeef0000 is not mapped" } })
    }))
  it.effect("owners in a chain that leads back", () =>
    Effect.gen(function*() {
      const { entries, problem } = yield* reading("task_storage", ({ at, map, read, write }) => {
        const table = read(map + at("bpf_local_storage_map", "buckets"))
        const size = 16n // a head and a lock, padded
        for (let bucket = 0n;; bucket++) {
          const first = read(table + bucket * size)
          if (first === 0n) continue
          return write(first, first)
        }
      })
      assert.match(problem!, /^corrupted: bucket \d+: its chain is a cycle$/)
      assert.isAtLeast(entries.length, 1)
    }))
  it.effect("a list of cgroups' values that breaks off", () =>
    Effect.gen(function*() {
      const { entries, problem } = yield* reading("cgroup_storage", ({ at, map, write }) => {
        write(map + at("bpf_cgroup_storage_map", "list"), NOWHERE)
      })
      assert.match(problem!, /^unreadable: bucket 0: element: 0xffffdeadbeee[0-9a-f]+ is not mapped$/)
      assert.deepStrictEqual(entries, [])
    }))
  it.effect("an arena that would go over a 4 GiB line", () =>
    Effect.gen(function*() {
      const { problem } = yield* reading("arena", ({ at, map, write }) => {
        write(map + at("bpf_arena", "user_vm_start"), 0x1000_ffff_0000n)
      })
      assert.strictEqual(problem, "truncated: had 16 pages below a 4 GiB line, needed 2000")
    }))
  it.effect("a struct_ops map of a type that the kernel does not have", () =>
    Effect.gen(function*() {
      const { problem } = yield* reading("still", ({ at, map, write }) => {
        write(map + at("bpf_map", "btf_vmlinux_value_type_id"), 1n, 4)
      })
      assert.match(problem!, /^unsupported: .*no struct of type 1/)
    }))
  it.effect("a count or a size that its other copy in the kernel contradicts", () =>
    Effect.gen(function*() {
      const claiming = (name: string, field: string, value: bigint) =>
        Effect.map(
          reading(name, ({ at, map, write }) => write(map + at("bpf_map", field), value, 4)),
          ({ consistency, entries, problem }) => {
            assert.deepStrictEqual([consistency, entries], ["unseen", []])
            return problem
          }
        )
      assert.strictEqual(
        yield* claiming("array_byte", "max_entries", 2n ** 24n),
        "corrupted: 16777216 elements, keys of 4 bytes, values of 1, but room for elements of 8 bytes up to 7"
      )
      assert.match(
        (yield* claiming("plain_hash", "value_size", 2048n)) ?? "",
        /^corrupted: 8 elements, keys of 5 bytes, values of 2048, but 8 buckets for elements of \d+ bytes$/
      )
      assert.strictEqual(
        yield* claiming("devmap", "value_size", 0xffff_ffffn),
        "corrupted: 4 elements, keys of 4 bytes, values of 4294967295"
      )
      assert.strictEqual(
        yield* claiming("devmap", "max_entries", 2n ** 24n),
        "corrupted: 16777216 slots where there is room for 4096"
      )
    }))
  it.effect("a type that is newer than its reader", () =>
    Effect.gen(function*() {
      const { consistency, problem } = yield* reading("queue", ({ at, map, write }) => {
        write(map + at("bpf_map", "map_type"), 77n, 4)
      })
      assert.deepStrictEqual([problem, consistency], ["unsupported: type 77 maps (type 77) are not read", "unseen"])
    }))
})
