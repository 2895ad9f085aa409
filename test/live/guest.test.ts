import * as FileSystem from "@effect/platform/FileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { BY_BYTES, KEYED } from "../guest/entries.ts"
import { parseCapture } from "../support/capture.ts"
import { compileBpf, compileKindsFill, HostLive, scratch } from "../support/guest.ts"
import { packLive } from "../support/liveInGuest.ts"
import { type Dumped, dumpOf } from "./dumpOf.ts"

/** Types whose entries are the same from both sides, to the byte; of sockets bpf(2) gives no more than a cookie. */
const ALIKE = new Set(
  [...KEYED, ...BY_BYTES, "ringbuf", "user_ringbuf", "arena"].filter((type) => !/^sock|sockarray$/.test(type))
)
/** The same values; the bytes behind them are other: a descriptor's owner, a stack's room, the kernel's own pointers. */
const SAME_VALUES = new Set(["stack_trace", "task_storage", "cgrp_storage"])
/** What bpf(2) cannot show. */
const UNSEEN = new Set(["bloom_filter", "perf_event_array", "cgroup_array", "xskmap", "sk_storage", "inode_storage"])

const sorted = (entries: Dumped["entries"]) => [...entries].sort((a, b) => a.bytes < b.bytes ? -1 : 1)

type AllMaps = Effect.Effect.Success<ReturnType<typeof dumpOf>>

/** The kernel's memory as it has that itself shows all that its memory from outside does, also what bpf(2) cannot. */
const compareKcore = (kcore: AllMaps, frozen: AllMaps) => {
  assert.deepStrictEqual(kcore.problems, [])
  assert.deepStrictEqual(kcore.programs, frozen.programs.map((program) => ({ ...program })))
  for (const [index, theirs] of frozen.maps.entries()) {
    const ours = kcore.maps[index]
    assert.deepStrictEqual(ours, { ...theirs, info: { ...theirs.info }, consistency: "racing" }, theirs.info.name)
  }
}

describe("a guest, and inside it a live dump", () => {
  it.scopedLive(
    "give equal documents, on a kernel with more possible CPUs than are online",
    () =>
      Effect.gen(function*() {
        const files = yield* FileSystem.FileSystem
        const directory = yield* scratch
        const objects = yield* compileBpf(directory, "types", "kinds", "congestion")
        const consoleFile = `${directory}/console`
        const sources = new URL("../bpf-src/", import.meta.url).pathname
        const { maps } = yield* bootAndFreeze({
          kernel: "debian:6.12-cloud",
          cpus: 4,
          memoryMib: 1536,
          cmdline: "maxcpus=2",
          includes: [
            "/usr/sbin/bpftool",
            process.execPath,
            ...objects,
            yield* compileKindsFill(directory),
            yield* packLive(new URL("dumpLive.ts", import.meta.url), directory),
            `${sources}fill.sh`,
            `${sources}capture.sh`
          ],
          script: `set -e
          sh /include-files/fill.sh
          mkdir /tmp/live
          tar -x -f /include-files/live.tar -C /tmp/live
          (cd /tmp/capture && node /tmp/live/live.mjs)
          sh /include-files/capture.sh`,
          consoleFile,
          timeout: "5 minutes"
        })
        const printed = parseCapture(yield* files.readFileString(consoleFile))
        const inside = (name: string): Effect.Effect.Success<ReturnType<typeof dumpOf>> =>
          JSON.parse(printed.get(`${name}.json`)!)
        const live = inside("live")
        const frozen = yield* dumpOf(maps)
        compareKcore(inside("kcore"), frozen)
        assert.deepStrictEqual(live.problems, [])
        assert.deepStrictEqual(live.maps.map(({ info }) => info), frozen.maps.map(({ info }) => ({ ...info })))
        const ids = ({ programs }: AllMaps) => programs.map(({ id, name, type }) => ({ id, name, type }))
        assert.deepStrictEqual(ids(live), ids(frozen))

        const compared = new Set<string>()
        for (const [index, theirs] of frozen.maps.entries()) {
          const ours = live.maps[index]
          const { name, type } = theirs.info
          const where = `${type} ${name}`
          compared.add(type)
          if (UNSEEN.has(type)) {
            assert.strictEqual(ours.consistency, "unseen", where)
            assert.strictEqual(ours.problem?.kind, "unsupported", where)
            continue
          }
          assert.strictEqual(ours.consistency, type === "sockmap" && theirs.info.valueSize === 4 ? "unseen" : "racing")
          if (ALIKE.has(type)) {
            assert.deepStrictEqual(sorted(ours.entries), sorted(theirs.entries), where)
            assert.deepStrictEqual([ours.details, ours.problem], [theirs.details, theirs.problem], where)
          } else if (SAME_VALUES.has(type)) {
            const plain = ({ entries }: Dumped) => entries.map(({ key, value }) => ({ key, value }))
            assert.deepStrictEqual(plain(ours), plain(theirs), where)
          } else if (type === "queue" || type === "stack") {
            assert.deepStrictEqual(ours.entries, theirs.entries.slice(0, 1), where)
          }
        }
        for (const type of [...ALIKE, ...SAME_VALUES, ...UNSEEN, "queue", "struct_ops"]) {
          assert.include([...compared], type)
        }

        assert.strictEqual(printed.get("cpus"), "2\n", "online CPUs")
        const perCpu = live.maps.find(({ info }) => info.type === "percpu_array")!
        for (const { value } of perCpu.entries) assert.lengthOf(Array.isArray(value) ? value : [], 4)
        // bpf(2) has the struct as it was given to the kernel, which goes on with a copy that it links into lists.
        const ops = ({ maps }: Pick<AllMaps, "maps">) => {
          const { details, entries: [{ value }] } = maps.find(({ info }) => info.type === "struct_ops")!
          const { key: _key, list: _list, owner: _owner, ...members }: Record<string, unknown> = Object(value)
          return [details?.["struct"], details?.["state"], members]
        }
        assert.deepStrictEqual(ops(live), ops(frozen))
      }).pipe(Effect.provide(HostLive)),
    400_000
  )
})
