import { assert, describe, it } from "@effect/vitest"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { u32 } from "../MadeHash.ts"
import { MadeKernelObjects } from "../MadeKernelObjects.ts"
import { hex, type MadeMapOf } from "../MadeMaps.ts"

/** How a map of four slots keeps its pointers, and what one of its objects is shown as. */
interface Slots {
  readonly type: MadeMapOf["type"]
  /** Where in the map the slots are, or with `indirect` the pointer to them. */
  readonly at: number
  readonly indirect?: true
  readonly valueSize?: number
  /** An object, and what it is shown as. */
  readonly object: (made: MadeKernelObjects) => readonly [address: bigint, shown: unknown]
  /** Bytes of an object up to the end of what is read of it. */
  readonly bytes: number
}

const socket = (made: MadeKernelObjects, at?: bigint) =>
  [made.socket(77, 8080, at), {
    cookie: 77,
    family: "AF_INET",
    protocol: 6,
    state: 1,
    local: "127.0.0.1:8080",
    remote: "10.0.0.2:443"
  }] as const

const tables: { readonly [name: string]: Slots } = {
  "programs": {
    type: "PROG_ARRAY",
    at: 88,
    object: (made) => [made.program("tail"), { id: 1, name: "tail", type: "tracing" }],
    bytes: 16
  },
  "inner maps": {
    type: "ARRAY_OF_MAPS",
    at: 88,
    object: (made) => [
      made.map({ type: "ARRAY", keySize: 4, valueSize: 4, maxEntries: 1, name: "inner", bytes: 96 }),
      { id: 2, name: "inner", type: "array" }
    ],
    bytes: 4
  },
  "perf events": {
    type: "PERF_EVENT_ARRAY",
    at: 88,
    object: (made) => {
      const entry = made.object(16)
      made.set64(entry + 8n, made.event(1, 10, -1))
      return [entry, { type: "PERF_TYPE_SOFTWARE", config: 10, cpu: -1 }]
    },
    bytes: 16
  },
  "cgroups": {
    type: "CGROUP_ARRAY",
    at: 88,
    object: (made) => {
      const directory = made.directory(7, "inner", made.directory(5, "outer", made.directory(1, "")))
      return [made.cgroup(directory), { id: 7, path: "/outer/inner" }]
    },
    bytes: 64
  },
  "network devices": {
    type: "DEVMAP",
    at: 72,
    indirect: true,
    valueSize: 8,
    object: (made) => {
      const entry = made.object(48)
      made.set64(entry, made.device(3, "eth3"))
      made.set64(entry + 24n, made.program("redirect"))
      return [entry, { device: { ifindex: 3, name: "eth3" }, program: { id: 1, name: "redirect", type: "tracing" } }]
    },
    bytes: 48
  },
  "CPUs": {
    type: "CPUMAP",
    at: 72,
    indirect: true,
    object: (made) => {
      const entry = made.object(24)
      made.put(entry, Buffer.concat([u32(5), u32(192)]))
      return [entry, { cpu: 5, qsize: 192 }]
    },
    bytes: 24
  },
  "XDP sockets": {
    type: "XSKMAP",
    at: 72,
    object: (made) => {
      const entry = made.object(88)
      const [, shown] = socket(made, entry)
      made.set64(entry + 72n, made.device(3, "eth3"))
      made.put(entry + 80n, Uint8Array.of(9))
      return [entry, { device: { ifindex: 3, name: "eth3" }, queue: 9, socket: shown }]
    },
    bytes: 88
  },
  "sockets": { type: "SOCKMAP", at: 72, indirect: true, valueSize: 8, object: (made) => socket(made), bytes: 72 },
  "sockets of a port": { type: "REUSEPORT_SOCKARRAY", at: 72, valueSize: 8, object: (made) => socket(made), bytes: 72 }
}

/** Slots 0, 2 and 3 lead to the same object. */
const slots = ({ at, indirect, object, type, valueSize = 4 }: Slots) => {
  const made = new MadeKernelObjects()
  const map = made.map({ type, keySize: 4, valueSize, maxEntries: 4, bytes: at + 4 * 8 })
  if (at === 88) {
    made.set32(map + 72n, 8)
    made.set32(map + 76n, 3)
  }
  const table = indirect ? made.object(4 * 8) : map + BigInt(at)
  if (indirect) made.set64(map + BigInt(at), table)
  const [address, shown] = object(made)
  made.set64(table, address, 0n, address, address)
  return { made, map, table, shown }
}

for (const [name, of] of Object.entries(tables)) {
  describe(`a map of ${name}`, () => {
    it("gives what each slot leads to, and leaves empty ones out", () => {
      const { made, shown } = slots(of)
      assert.deepStrictEqual(made.read(), {
        entries: [[0, shown], [2, shown], [3, shown]],
        problem: null,
        details: null
      } as never)
    })

    it("leaves slots that lead nowhere, or to what the memory's end cuts, and gives those before and behind them", () => {
      const { made, shown, table } = slots(of)
      const left = (why: string): void => {
        const { entries, problem } = made.read()
        assert.deepStrictEqual(entries, [[0, shown], [3, shown]] as never)
        assert.strictEqual(problem, `unreadable: entry 2: ${why} is not mapped`)
      }
      made.set64(table + 16n, NOWHERE)
      left("0xffffdeadbeef0000")
      const missing = of.bytes > 8 ? 4 : 2
      made.set64(table + 16n, made.atTheEnd(of.bytes - missing))
      left(hex(made.atTheEnd(0)))
    })

    it("does not believe more slots than there is room for", () => {
      const { made, map } = slots(of)
      made.set32(map + 16n, 2 ** 20)
      if (of.at === 88) made.set32(map + 76n, 2 ** 20 - 1)
      const { entries, problem } = made.read()
      assert.deepStrictEqual(entries, [])
      assert.strictEqual(
        problem,
        of.at === 88
          ? "corrupted: 1048576 elements, keys of 4 bytes, values of 4 do not fit the guest's memory"
          : "corrupted: 1048576 slots where there is room for 4096"
      )
    })
  })
}

/** Two buckets: keys 1 and 2 in the first, 3 in the second; all lead to the same object. */
const chains = (
  of: {
    readonly map: MadeMapOf
    readonly buckets: bigint
    readonly count: bigint
    readonly bucketSize: bigint
    readonly elementSize: number
    readonly key: bigint
    readonly next: bigint
    readonly object: bigint
  },
  pointsAt: (made: MadeKernelObjects) => readonly [bigint, unknown]
) => {
  const made = new MadeKernelObjects()
  const map = made.map(of.map)
  const buckets = made.object(64)
  made.set64(map + of.buckets, buckets)
  made.set32(map + of.count, 2)
  const [object, shown] = pointsAt(made)
  const end = of.map.type === "HASH_OF_MAPS" ? 1n : 0n
  const elements = [1, 2, 3].map((key) => {
    const element = made.object(of.elementSize)
    made.set32(element + of.key, key)
    made.set64(element + of.object, object)
    made.set64(element + of.next, end)
    return element
  })
  made.set64(buckets, elements[0] + of.next)
  made.set64(buckets + of.bucketSize, elements[2] + of.next)
  made.set64(elements[0] + of.next, elements[1] + of.next)
  return { made, map, elements, next: of.next, object: of.object, shown }
}

const hashes: { readonly [name: string]: () => ReturnType<typeof chains> } = {
  "a hash of inner maps": () => {
    const hash = chains({
      map: { type: "HASH_OF_MAPS", keySize: 4, valueSize: 4, maxEntries: 2, bytes: 96 },
      buckets: 72n,
      count: 80n,
      bucketSize: 16n,
      elementSize: 64,
      key: 48n,
      next: 0n,
      object: 56n
    }, (made) => tables["inner maps"].object(made))
    hash.made.set32(hash.map + 84n, 64)
    return hash
  },
  "a hash of network devices": () =>
    chains({
      map: { type: "DEVMAP_HASH", keySize: 4, valueSize: 8, maxEntries: 2, bytes: 104 },
      buckets: 88n,
      count: 96n,
      bucketSize: 8n,
      elementSize: 48,
      key: 32n,
      next: 8n,
      object: 0n
    }, (made) => [made.device(3, "eth3"), { device: { ifindex: 3, name: "eth3" } }]),
  "a hash of sockets": () =>
    chains({
      map: { type: "SOCKHASH", keySize: 4, valueSize: 8, maxEntries: 2, bytes: 88 },
      buckets: 72n,
      count: 80n,
      bucketSize: 16n,
      elementSize: 40,
      key: 32n,
      next: 0n,
      object: 24n
    }, (made) => socket(made))
}

for (const [name, make] of Object.entries(hashes)) {
  describe(name, () => {
    const isOfDevices = name === "a hash of network devices"
    /** A key as it is shown: of network devices it is an index, else bytes. */
    const key = (index: number) => isOfDevices ? index : Buffer.from(u32(index)).toString("hex")
    const keys = (made: MadeKernelObjects) => made.read().entries.map(([key]) => key)

    it("gives the elements of each chain with what they lead to", () => {
      const { made, shown } = make()
      assert.deepStrictEqual(made.read(), {
        entries: [[key(1), shown], [key(2), shown], [key(3), shown]],
        problem: null,
        details: null
      } as never)
    })

    it("leaves a chain that is a cycle, and one that leads nowhere, and goes on with the next bucket", () => {
      const { elements, made, next } = make()
      made.set64(elements[1] + next, elements[0] + next)
      const found = keys(made)
      assert.includeMembers(found, [key(1), key(2)])
      assert.strictEqual(found.at(-1), key(3))
      assert.strictEqual(made.read().problem, "corrupted: bucket 0: its chain is a cycle")
      made.set64(elements[0] + next, NOWHERE + next)
      assert.deepStrictEqual(keys(made), [key(1), key(3)])
      assert.strictEqual(made.read().problem, "unreadable: bucket 0: element: 0xffffdeadbeef0000 is not mapped")
    })

    it("says which object cannot be read, and gives the others", () => {
      const { elements, made, object, shown } = make()
      made.set64(elements[1] + object, NOWHERE)
      const { entries, problem } = made.read()
      const inPlace = [key(2), { device: { $unreadable: "0xffffdeadbeef0000 is not mapped" } }]
      assert.deepStrictEqual(entries, [
        [key(1), shown],
        ...isOfDevices ? [inPlace] : [],
        [key(3), shown]
      ] as never)
      assert.strictEqual(
        problem,
        `unreadable: ${isOfDevices ? "inside an entry" : "entry 1"}: 0xffffdeadbeef0000 is not mapped`
      )
    })

    it("does not believe more buckets than the memory has room for", () => {
      const { made, map } = make()
      made.set32(map + (isOfDevices ? 96n : 80n), 2 ** 30)
      const { entries, problem } = made.read()
      assert.deepStrictEqual(entries, [])
      assert.strictEqual(
        problem,
        name === "a hash of inner maps"
          ? `corrupted: 2 elements, keys of 4 bytes, values of 4, but ${2 ** 30} buckets for elements of 64 bytes`
          : `corrupted: ${2 ** 30} buckets, keys of 4 bytes`
      )
    })
  })
}
