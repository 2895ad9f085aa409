import * as FileSystem from "@effect/platform/FileSystem"
import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { DumpDocument } from "../../src/bpf/Report.ts"
import { jsonDocument } from "../../src/bpf/report/DumpWriter.ts"
import { bootAndFreeze, type Snapshot } from "../../src/Ktstr.ts"
import { parseEntries, parseMaps } from "../support/bpftool.ts"
import { parseCapture } from "../support/capture.ts"
import { compileBpf, compileSpecialFill, HostLive, scratch } from "../support/guest.ts"
import { needsScx, scx } from "../support/scx.ts"
import { byKey, comparable, listed, withoutLeftovers } from "./entries.ts"

interface Callback {
  /** The id of the program that set it, and what /proc/kallsyms call it. */
  readonly program: number
  readonly callback: string
}
/** What special-fill.c says that it put in. */
interface Filled {
  readonly timers: Callback & { readonly times: ReadonlyArray<readonly [from: string, to: string, fired: number]> }
  readonly watched_tasks: number
  readonly ring_busy: ReadonlyArray<readonly [state: string, length: number, byte: number]>
  readonly devices: unknown
  readonly cpus: unknown
  readonly xsk_bound: { readonly inode: number }
  readonly tcp: ReadonlyArray<unknown>
  readonly shared_storage: number
  readonly holders?: { readonly pid: number; readonly cgroup: number }
  readonly jobs?: Callback & { readonly done: number }
}

const CPUS = 3
const HOUR = 3_600_000_000_000n
const LO = { ifindex: 1, name: "lo" }
const UNLOCKED = { val: 0 }

interface Guest {
  readonly kernel: string
  /** Sources of test/bpf-src that this kernel can load. */
  readonly sources: ReadonlyArray<string>
  /** Whether its programs allocate objects. */
  readonly hasObjects: boolean
}

const compare = ({ hasObjects, kernel, sources }: Guest) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const directory = yield* scratch
    const consoleFile = `${directory}/console`
    const source = new URL("../bpf-src/", import.meta.url).pathname
    const snapshot = yield* bootAndFreeze({
      kernel,
      cpus: CPUS,
      memoryMib: 512,
      includes: [
        "/usr/sbin/bpftool",
        ...(yield* compileBpf(directory, ...sources)),
        yield* compileSpecialFill(directory),
        `${source}special-fill.sh`,
        `${source}capture.sh`
      ],
      script: "sh /include-files/special-fill.sh && sh /include-files/capture.sh",
      consoleFile,
      timeout: "4 minutes"
    })
    const printed = parseCapture(yield* files.readFileString(consoleFile))
    const filled: Filled = JSON.parse(printed.get("filled.json")!)
    const { items } = yield* snapshot.maps.list
    const theirs = withoutLeftovers(parseMaps(printed.get("maps.json")!), items, snapshot.header.kernel.release)
    assert.deepStrictEqual(items.map(listed), theirs)
    const infoOf = (name: string) => items.find((info) => info.name === name)!
    const entriesOf = (name: string) =>
      Effect.map(
        Stream.runCollect(snapshot.maps.entries(infoOf(name))),
        (entries) => Array.from(entries, comparable)
      )
    /** Keys and values as the plain JSON of a dump. */
    const plainOf = (name: string) =>
      Effect.map(entriesOf(name), (entries): ReadonlyArray<unknown> =>
        entries.map(({ plain }) => [plain.key, "value" in plain ? plain.value : plain.cpus]))
    const programs = new Map((yield* snapshot.maps.programs).items.map((program) => [program.id, program]))

    yield* checkJson(snapshot)

    const { callback, program, times } = filled.timers
    const set = { clock: "CLOCK_MONOTONIC", callback: `${callback}+0x0`, program: { ...programs.get(program) } }
    assert.strictEqual(set.program.name, "fill_timers")
    assert.deepStrictEqual(
      times.map(([, , fired]) =>
        fired
      ),
      [0, 0, 1, 0, 0]
    )
    const [[armedFrom, armedTo]] = times
    const [armed] = yield* entriesOf("timers")
    const expires = "value" in armed.plain ? Object(armed.plain.value)["timer"]["expires"] : undefined
    assert.isTrue(BigInt(expires) >= BigInt(armedFrom) + HOUR && BigInt(expires) <= BigInt(armedTo) + HOUR, expires)
    const timers = [
      { armed: true, expires, ...set },
      { armed: false, clock: "CLOCK_MONOTONIC" }, // cancelling takes the callback away
      { armed: false, ...set },
      { armed: false, ...set, clock: "CLOCK_BOOTTIME" },
      { armed: false }
    ]
    assert.deepStrictEqual(
      yield* plainOf("timers"),
      timers.map((timer, key) => [key, {
        from: Number(times[key][0]),
        to: Number(times[key][1]),
        timer,
        fired: times[key][2]
      }])
    )

    const pid = filled.watched_tasks
    const watched = byKey(yield* entriesOf("watched_tasks"))
    assert.deepStrictEqual<unknown>(watched.map(({ plain }) => plain), [
      { key: 7, value: { task: "0x0", pid: 0 } },
      {
        key: 8,
        value: {
          task: {
            address: pointerAt(watched[1].valuesHex[0], 0),
            type: "task_struct",
            value: { pid, tgid: pid, comm: "special-fill" }
          },
          pid
        }
      }
    ])

    const records = (yield* entriesOf("ring_busy")).map(({ plain }) => "value" in plain ? plain.value : undefined)
    assert.deepStrictEqual<unknown>(
      records,
      filled.ring_busy.map(([state, length, byte]) => ({
        state,
        length,
        data: byte.toString(16).padStart(2, "0").repeat(length)
      }))
    )

    assert.deepStrictEqual(yield* plainOf("devices"), [
      [1, { device: LO, program: filled.devices }],
      [2, { device: LO }]
    ])
    assert.deepStrictEqual<unknown>(byKey(yield* entriesOf("device_hash")).map(({ plain }) => plain), [
      { key: 11, value: { device: LO, program: filled.devices } },
      { key: 22, value: { device: LO } }
    ])
    assert.deepStrictEqual(yield* plainOf("cpus"), [
      [0, { cpu: 0, qsize: 192, program: filled.cpus }],
      [1, { cpu: 1, qsize: 64 }]
    ])
    for (const name of ["devices", "device_hash", "cpus", "sockmap_tcp", "sockhash_tcp", "reuseport_tcp"]) {
      const bytes = (
        { keyHex, valuesHex }: { keyHex: string; valuesHex: ReadonlyArray<string> }
      ) => [keyHex, ...valuesHex]
      const theirs = byKey(parseEntries(printed.get(`map-${infoOf(name).id}.json`)!, listed(infoOf(name))))
      assert.deepStrictEqual(byKey(yield* entriesOf(name)).map(bytes), theirs.map(bytes), name)
    }

    const xdp = { cookie: 0, inode: filled.xsk_bound.inode, family: "AF_XDP", protocol: 0, state: 7 }
    assert.deepStrictEqual(yield* plainOf("xsk_bound"), [[1, { device: LO, queue: 0, socket: xdp }]])
    assert.deepStrictEqual(
      yield* plainOf("sockmap_tcp"),
      filled.tcp.slice(0, 3).map((socket, index) => [index, socket])
    )
    assert.deepStrictEqual(yield* plainOf("reuseport_tcp"), [[1, filled.tcp[3]]])
    assert.deepStrictEqual<unknown>(
      byKey(yield* entriesOf("sockhash_tcp")).map(({ plain }) => "value" in plain ? plain.value : undefined),
      filled.tcp.slice(0, 3)
    )
    assert.deepStrictEqual(yield* plainOf("shared_storage"), [
      [{ cgroup_inode_id: filled.shared_storage, path: "/special/of one" }, 4321]
    ])

    assert.strictEqual(filled.holders !== undefined, hasObjects)
    const { holders, jobs } = filled
    if (holders === undefined || jobs === undefined) return

    const shelves = yield* entriesOf("shelves")
    const shelf: Record<string, ReadonlyArray<Record<string, Record<string, string>>>> = "value" in shelves[0].plain
      ? Object(shelves[0].plain.value)
      : {}
    // All nodes of a list say in which head they are; that of the tree lies behind that of the list.
    const list = shelf["items"][0]["node"]["owner"]
    const tree = `0x${(BigInt(list) + 16n).toString(16)}`
    assert.match(list, /^0xff[0-9a-f]{14}$/)
    const numbers = [100, 102, 104, 101, 103]
    const stored = numbers.map((number, index) => ({
      number,
      node: { owner: list },
      branch: { owner: tree },
      references: 2,
      name: "abcde"[index]
    }))
    assert.deepStrictEqual<unknown>(shelves.map(({ plain }) => plain), [
      {
        key: 0,
        value: {
          lock: UNLOCKED,
          number: 5,
          items: stored,
          sorted: stored.toSorted((a, b) => a.number - b.number)
        }
      },
      { key: 1, value: { lock: UNLOCKED, number: 0, items: [], sorted: [] } },
      { key: 2, value: { lock: UNLOCKED, number: 0, items: [], sorted: [] } }
    ])

    const [data] = yield* entriesOf(".data.private")
    const section: Record<string, ReadonlyArray<Record<string, Record<string, string>>>> = "value" in data.plain
      ? Object(data.plain.value)
      : {}
    const { owner } = section["private_items"][0]["node"]
    const alone = { node: { owner }, branch: { owner: "0x0" }, references: 1 }
    assert.deepStrictEqual<unknown>(section, {
      private_lock: UNLOCKED,
      private_items: [{ number: 100, ...alone, name: "a" }, { number: 102, ...alone, name: "b" }]
    })

    const held = byKey(yield* entriesOf("holders"))
    const at = (index: number) => pointerAt(held[0].valuesHex[0], index)
    assert.deepStrictEqual<unknown>(held.map(({ plain }) => plain), [
      {
        key: 1,
        value: {
          task: {
            address: at(0),
            type: "task_struct",
            value: { pid: holders.pid, tgid: holders.pid, comm: "held task" }
          },
          cgroup: { address: at(1), type: "cgroup", value: { id: holders.cgroup, path: "/special/of one" } },
          mask: { address: at(2), type: "bpf_cpumask", value: "0,2" },
          item: {
            address: at(3),
            type: "item",
            value: { number: 102, node: { owner: "0x0" }, branch: { owner: "0x0" }, references: 1, name: "b" }
          },
          // One level deep: of the lists in an object the length is told.
          group: { address: at(4), type: "group", value: { lock: UNLOCKED, id: 77, members: [{ $omitted: 3 }] } },
          counts: { address: at(5), type: "count", cpus: [{ count: 500 }, { count: 501 }, { count: 502 }] }
        }
      },
      { key: 2, value: { task: "0x0", cgroup: "0x0", mask: "0x0", item: "0x0", group: "0x0", counts: "0x0" } }
    ])

    yield* damage(snapshot, { list: BigInt(list), held: BigInt(at(3)) })

    assert.strictEqual(jobs.done, 1)
    const work = {
      pending: false,
      callback: `${jobs.callback}+0x0`,
      program: { ...programs.get(jobs.program) }
    }
    assert.deepStrictEqual(yield* plainOf("jobs"), [
      [0, { work, done: 1 }],
      [1, { work: { pending: false }, done: 0 }]
    ])
  }).pipe(Effect.scoped, Effect.provide(HostLive))

/** The JSON of a dump is what its schema says, and what the library gives. */
const checkJson = ({ header, maps }: Snapshot) =>
  Effect.gen(function*() {
    const readers = yield* Effect.forEach((yield* maps.list).items, maps.reader)
    const dump = { header, readers, programs: [], problems: [], limit: Infinity }
    const text = Buffer.concat(Array.from(jsonDocument(dump), (piece) => piece.slice())).toString()
    const document = yield* Schema.decodeUnknown(DumpDocument)(JSON.parse(text))
    for (const [index, { entries, problem }] of document.maps.entries()) {
      assert.isNull(problem)
      const expected = yield* Stream.runCollect(maps.entries(readers[index].info))
      assert.deepStrictEqual<unknown>(entries, Array.from(expected, (entry) => comparable(entry).plain))
    }
  })

/** Nodes that lead astray say so in their place, whatever they say, and what is before them is shown. */
const damage = (
  { kernel: { space }, maps }: Snapshot,
  { held, list }: { readonly list: bigint; readonly held: bigint }
) =>
  Effect.gen(function*() {
    const read = (address: bigint): bigint => space.u64(address) ?? assert.fail(space.faultText)
    const write = (address: bigint, value: bigint) =>
      assert.isTrue(space.write(address, new Uint8Array(BigUint64Array.of(value).buffer)), space.faultText)
    const { items } = yield* maps.list
    const infoOf = (name: string) => items.find((info) => info.name === name)!
    /** A map's first value. The stream fails after the last entry where a part of one is missing: the entry says which. */
    const first = (name: string) =>
      Effect.map(
        Stream.runCollect(Stream.catchTag(maps.entries(infoOf(name)), "MapProblem", () => Stream.empty)),
        (entries) => Object(byKey(Array.from(entries, comparable))[0].plain).value
      )
    /** What a map's first value shows while a word has another value. */
    const damaged = (name: string, address: bigint, value: bigint) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          const before = read(address)
          write(address, value)
          return before
        }),
        () => first(name),
        (before) => Effect.sync(() => write(address, before))
      )
    const numbers = (
      elements: ReadonlyArray<{ readonly number?: number; readonly $unreadable?: string; readonly $corrupted?: string }>
    ) => elements.map(({ $corrupted, $unreadable, number }) => number ?? $unreadable ?? `corrupted: ${$corrupted}`)
    const hex = (address: bigint): string => `0x${address.toString(16)}`
    const nowhere = 0xffff_dead_beef_0000n

    const nodes = [list]
    for (let node = read(list); node !== list; node = read(node)) nodes.push(node)
    const [, one, two, , , last] = nodes
    const astray = (node: bigint, back: bigint, not: bigint) =>
      `corrupted: ${hex(node)} points back at ${hex(back)}, not at ${hex(not)}`
    assert.deepStrictEqual(numbers((yield* damaged("shelves", last, two)).items), [
      100,
      102,
      104,
      101,
      103,
      astray(two, one, last)
    ])
    assert.deepStrictEqual(numbers((yield* damaged("shelves", two + 8n, two)).items), [100, astray(two, two, one)])
    assert.deepStrictEqual(numbers((yield* damaged("shelves", two, nowhere)).items), [
      100,
      102,
      `${hex(nowhere)} is not mapped`
    ])
    assert.deepStrictEqual(numbers((yield* damaged("shelves", list, two)).items), [
      `corrupted: ${hex(two)} is not the first of the list at ${hex(one)}`
    ])

    const root = read(list + 16n)
    const [right, left] = [read(root + 8n), read(root + 16n)]
    assert.deepStrictEqual(numbers((yield* damaged("shelves", left + 16n, root)).sorted), [
      `corrupted: ${hex(root)} points up at 0x0, not at ${hex(left)}`
    ])
    const twice = numbers((yield* damaged("shelves", root + 8n, left)).sorted)
    assert.strictEqual(twice.at(-1), `corrupted: both children of ${hex(root)} are ${hex(left)}`)
    assert.strictEqual((yield* damaged("holders", held, 5n)).item.value.number, 5)

    // Any word of them, with values that lead to one another.
    const words = [
      ...nodes.flatMap((node) => [0n, 8n, 16n, 24n, 32n, 40n, 48n].map((at) => node + at)),
      root,
      right,
      left
    ]
    const values = [...words, 0n, 8n, 2n ** 64n - 1n, 0x7fff_0000_1000n, nowhere]
    for (const address of words) {
      for (const value of values) {
        const { items, sorted } = yield* damaged("shelves", address, value)
        assert.isAtMost(items.length + sorted.length, 12, `${hex(value)} at ${hex(address)}`)
      }
    }
    assert.deepStrictEqual(numbers((yield* first("shelves")).sorted), [100, 101, 102, 103, 104])
  })

/** The 64-bit pointer at an index of a value, as JSON has it. */
const pointerAt = (hex: string, index: number): string =>
  `0x${Buffer.from(hex, "hex").readBigUInt64LE(index * 8).toString(16)}`

describe("what the kernel keeps in values for programs is shown as what it is", () => {
  it.effect(
    "6.12",
    () => compare({ kernel: "debian:6.12-cloud", sources: ["special", "objects"], hasObjects: true }),
    300_000
  )
  it.effect("6.1", () => compare({ kernel: "debian:6.1-cloud", sources: ["special-6.1"], hasObjects: false }), 300_000)
  it.effect(
    "7.3",
    () => compare({ kernel: "debian:7.3-cloud", sources: ["special", "objects-7.0"], hasObjects: true }),
    300_000
  )
  describe("on a kernel with sched_ext", () => {
    beforeEach(needsScx)
    it.effect(
      "6.12",
      () =>
        Effect.flatMap(scx, ({ key }) => compare({ kernel: key, sources: ["special", "objects"], hasObjects: true })),
      300_000
    )
  })
})
