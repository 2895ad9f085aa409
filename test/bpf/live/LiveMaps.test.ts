import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import { openLive } from "../../../src/bpf/live/OpenLive.ts"
import type { MapInfo } from "../../../src/bpf/MapInfo.ts"
import { formatReason } from "../../../src/core/Reason.ts"
import { BY_BYTES, byKey, comparable, compareEntries, KEYED, listed } from "../../guest/entries.ts"
import { parseEntries, parseMaps, PrintedTypes } from "../../support/bpftool.ts"
import { scratch } from "../../support/guest.ts"
import { bpftool, filledHost, HostLive, makeMap, openDescriptors, refused, u32 } from "./support.ts"

/** Types that bpf(2) does not show, and what is said of them. */
const UNSEEN: Readonly<Record<string, string>> = {
  bloom_filter: "unsupported: bpf(2) can only test whether a value may be in the filter; it cannot list values",
  perf_event_array: "unsupported: bpf(2) has no lookup for such maps",
  cgroup_array: "unsupported: bpf(2) has no lookup for such maps",
  xskmap: "unsupported: bpf(2) has no lookup for such maps",
  sk_storage:
    "unsupported: bpf(2) finds a socket's storage only by a descriptor of its own process, and cannot list sockets",
  inode_storage: "unsupported: bpf(2) cannot list owners, and no `files` were given"
}

type Live = Effect.Effect.Success<ReturnType<typeof openLive>>

/** The entries, and what was said to be missing. */
const read = (live: Live, info: MapInfo) =>
  Effect.gen(function*() {
    const entries: Array<ReturnType<typeof comparable>> = []
    const problem = yield* Stream.runForEach(
      live.maps.entries(info),
      (entry) => Effect.sync(() => void entries.push(comparable(entry)))
    ).pipe(Effect.as(null), Effect.catchTag("MapProblem", ({ problem }) => Effect.succeed(formatReason(problem))))
    return { entries, problem }
  })

const print = (info: MapInfo) =>
  Effect.promise(async () => {
    const types = info.btfId === null
      ? undefined
      : new PrintedTypes(await bpftool("btf", "dump", "id", String(info.btfId)))
    return byKey(parseEntries(await bpftool("map", "dump", "id", String(info.id)), listed(info), types))
  })

describe.skipIf(refused !== undefined)("LiveMaps", () => {
  it.scopedLive(
    "maps of every type that this kernel has read as bpftool reads them, or say why not",
    () =>
      Effect.gen(function*() {
        const directory = yield* scratch
        const before = openDescriptors()
        const pid = yield* filledHost(directory)
        const filled = JSON.parse(readFileSync(`${directory}/filled.json`, "utf8"))
        yield* Effect.scoped(Effect.gen(function*() {
          const live = yield* openLive()
          const { items, problems } = yield* live.maps.list
          assert.deepStrictEqual(problems, [])
          // bpftool 7.1 gives Linux 6.18 a struct that is not cleared: btf_id is then that of the map before.
          const withoutBtf = (map: object) => ({ ...map, btfId: undefined })
          const theirs = parseMaps(yield* Effect.promise(() => bpftool("map", "list")))
          assert.deepStrictEqual(items.map((info) => withoutBtf(listed(info))), theirs.map(withoutBtf))
          const programs = JSON.parse(yield* Effect.promise(() => bpftool("prog", "list")))
          assert.deepStrictEqual(
            (yield* live.maps.programs).items.map(({ id, name, type }) => ({ id, name, type })),
            programs.map(({ id, name, type }: { id: number; name?: string; type: string }) => ({
              id,
              name: name ?? "",
              type
            }))
          )
          const btfs = JSON.parse(yield* Effect.promise(() => bpftool("btf", "list")))
          assert.deepStrictEqual(
            live.live.btfs.items.map(({ id, size }) => ({ id, size })),
            btfs.map(({ id, size }: { id: number; size: number }) => ({ id, size }))
          )

          const seen = new Set<string>()
          for (const info of items) {
            seen.add(info.type)
            const { entries, problem } = yield* read(live, info)
            const reader = yield* live.maps.reader(info)
            if (KEYED.has(info.type)) {
              assert.isNull(problem, info.name)
              compareEntries(info, byKey(entries), yield* print(info))
            } else if (
              BY_BYTES.has(info.type) || info.type === "stack_trace" ||
              (info.type === "sockmap" && info.valueSize === 8)
            ) {
              const bytes = ({ keyHex, valuesHex }: { keyHex: string; valuesHex: ReadonlyArray<string> }) => ({
                keyHex,
                valuesHex: [...valuesHex]
              })
              assert.isNull(problem, info.name)
              assert.isNotEmpty(entries, info.name)
              assert.deepStrictEqual(byKey(entries).map(bytes), (yield* print(info)).map(bytes), info.name)
            } else if (UNSEEN[info.type] !== undefined) {
              assert.strictEqual(problem, UNSEEN[info.type], info.name)
              assert.strictEqual(reader.consistency, "unseen")
            }
          }
          for (const type of [...KEYED, ...BY_BYTES, "stack_trace", ...Object.keys(UNSEEN)]) {
            assert.include([...seen], type)
          }

          const named = (name: string) =>
            Effect.gen(function*() {
              const [info] = yield* live.maps.find(name)
              const { entries, problem } = yield* read(live, info)
              return {
                plain: entries.map(({ plain }) => plain),
                problem,
                details: (yield* live.maps.reader(info)).details
              }
            })
          for (const name of ["ring_wrapped", "user_ringbuf"]) {
            const { consumer, producer, records } = filled[name]
            const { details, plain, problem } = yield* named(name)
            assert.isNull(problem)
            assert.deepStrictEqual<unknown>(
              plain,
              records.map(([position, state, length, byte]: [number, string, number, number]) => ({
                key: position,
                value: { state, length, data: byte.toString(16).padStart(2, "0").repeat(length) }
              }))
            )
            assert.deepStrictEqual([details?.["size"], details?.["consumer"], details?.["producer"]], [
              4096,
              consumer,
              producer
            ])
          }
          const trace = yield* named("stack_traces")
          assert.deepStrictEqual<unknown>(trace.plain, [{
            key: filled.stack_traces.id,
            value: filled.stack_traces.frames
          }])
          const builds = yield* named("stack_build_ids")
          assert.deepStrictEqual(builds.plain.map(({ key }) => key), [filled.stack_build_ids.id])

          if (filled.arena !== undefined) {
            // Twice: reading has made no page.
            for (const arena of [yield* named("arena"), yield* named("arena")]) {
              assert.isNull(arena.problem)
              assert.deepStrictEqual<unknown>(
                arena.plain,
                filled.arena.pages.map((page: number, index: number) => ({
                  key: `0x${(BigInt(filled.arena.at) + BigInt(page * 4096)).toString(16)}`,
                  value: (0x31 + index).toString(16).repeat(4096 - index) + "00".repeat(index)
                }))
              )
            }
          }

          for (const [id, program] of Object.entries<number>(filled.prog_array)) {
            const { plain } = yield* named("prog_array")
            const name = program === filled.prog_array["1"] ? "fill_kinds" : "fill_ring"
            assert.deepInclude<unknown>(plain, { key: Number(id), value: { id: program, name, type: "sched_cls" } })
          }
          for (const name of ["devmap", "devmap_hash", "cpumap"]) {
            const { plain } = yield* named(name)
            const expected = Object.entries(filled[name]).map(([key, value]) => ({ key: Number(key), value }))
            assert.sameDeepMembers<unknown>(plain, expected, name)
          }
          for (const name of ["cgroup_storage", "percpu_storage"]) {
            const { cgroup, path } = filled.cgroup_storage
            const [{ key }] = (yield* named(name)).plain
            assert.deepStrictEqual<unknown>(key, { cgroup_inode_id: cgroup, attach_type: 1, path }, name)
          }
          const inner = (yield* live.maps.find("inner_first"))[0].id
          assert.deepInclude<unknown>((yield* named("array_of_maps")).plain, {
            key: 0,
            value: { id: inner, name: "inner_first", type: "array" }
          })
          assert.deepStrictEqual<unknown>((yield* named("hash_of_maps")).plain, [
            { key: "01000000", value: { id: inner, name: "inner_first", type: "array" } }
          ])

          // In the order in which they would come; only the first can be seen, and stays.
          for (const name of ["queue_wrapped", "stack_popped"]) {
            const [first] = filled[name]
            const value = Buffer.from(u32(first, ~first >>> 0, 7)).toString("hex")
            for (const { plain, problem } of [yield* named(name), yield* named(name)]) {
              assert.deepStrictEqual<unknown>(plain, [{ key: 0, value }])
              assert.match(problem ?? "", /^unsupported: bpf\(2\) shows only the next element/)
            }
          }
          const empty = yield* named("queue_empty")
          assert.deepStrictEqual([empty.plain, empty.problem], [[], null])

          for (
            const [name, asked] of [["task_storage", /the threads in \/proc/], [
              "cgrp_storage",
              /cgroups under/
            ]] as const
          ) {
            const { plain, problem } = yield* named(name)
            assert.deepStrictEqual<unknown>(
              plain.map(({ key, ...rest }) => [key, ...Object.values(rest)]),
              filled[name]
            )
            assert.match(problem ?? "", asked)
          }
          const file = `/proc/${pid}/root/tmp/kinds-inode`
          const asking = yield* openLive({ files: [file], keep: ({ type }) => type === "inode_storage" })
          const [storage] = (yield* asking.maps.list).items
          const stored = yield* read(asking, storage)
          const [[{ inode }, value]] = filled.inode_storage
          assert.deepStrictEqual<unknown>(stored.entries.map(({ plain }) => plain), [{
            key: { inode, path: file },
            value
          }])

          const ops = yield* named("still")
          const shown = Object.assign(
            {},
            ...JSON.parse(yield* Effect.promise(() => bpftool("struct_ops", "dump", "name", "still")))
          )
          const data = shown.bpf_struct_ops_tcp_congestion_ops.data
          assert.deepStrictEqual(ops.details?.["struct"], "tcp_congestion_ops")
          assert.deepStrictEqual(ops.details?.["state"], "BPF_STRUCT_OPS_STATE_INUSE")
          const [{ plain: struct }] = (yield* read(live, (yield* live.maps.find("still"))[0])).entries
          const members: Record<string, unknown> = Object(Object(struct).value)
          assert.strictEqual(members["name"], "ktstr_still")
          for (const [member, program] of [["ssthresh", "still_ssthresh"], ["cong_avoid", "still_avoid"]]) {
            const id = Number(/prog_id:(\d+)$/.exec(data[member])?.[1])
            assert.deepStrictEqual<unknown>(members[member], { id, name: program, type: "struct_ops" })
          }
          assert.strictEqual(members["pkts_acked"], "0x0")
        }))
        assert.isAtLeast(before + 3, openDescriptors(), "descriptors of the filling programs' pipes alone are left")
      }).pipe(Effect.provide(HostLive)),
    60_000
  )

  it.scopedLive("who may not use bpf(2) is told what is missing", () =>
    Effect.gen(function*() {
      const error = yield* Effect.acquireUseRelease(
        // Before the call, not by a layer: only the call is to be refused.
        Effect.sync(() => process.seteuid!(65_534)),
        () => Effect.flip(openLive()),
        () => Effect.sync(() => process.seteuid!(0))
      )
      assert.strictEqual(error._tag, "HostLacks")
      assert.match(error.message, /^bpf\(2\): EPERM: reading the maps of others needs CAP_SYS_ADMIN; run this as root/)
    }).pipe(Effect.provide(HostLive)))

  it.scopedLive("a map that is not wanted is not kept open", () =>
    Effect.gen(function*() {
      yield* makeMap({ type: 2, name: "unwanted" })
      const before = openDescriptors()
      const live = yield* openLive({ keep: () => false })
      assert.deepStrictEqual(yield* live.maps.list, { items: [], problems: [] })
      assert.strictEqual(openDescriptors(), before)
      const error = yield* Effect.flip(live.maps.find("unwanted"))
      assert.strictEqual(error._tag, "MapNotFound")
      assert.match(error.message, /^no map unwanted: `keep` excludes all [1-9]\d* maps$/)
    }).pipe(Effect.provide(HostLive)))
})
