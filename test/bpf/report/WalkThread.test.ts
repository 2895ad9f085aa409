import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { readFileSync } from "node:fs"
import { GuestMaps } from "../../../src/bpf/guest/GuestMaps.ts"
import type { MapReader } from "../../../src/bpf/MapReader.ts"
import { DUMP_VERSION, type Header } from "../../../src/bpf/Report.ts"
import { type Dump, jsonDocument, ndjsonRecords } from "../../../src/bpf/report/DumpWriter.ts"
import type { WalkTask } from "../../../src/bpf/report/WalkParts.ts"
import { secondThread } from "../../../src/bpf/report/WalkThread.ts"
import { Losses } from "../../../src/core/Losses.ts"
import { GuestKernel } from "../../../src/memory/GuestKernel.ts"
import { GuestMemory } from "../../../src/memory/GuestMemory.ts"
import { MadeKernel } from "../../memory/MadeKernel.ts"
import { NOWHERE } from "../../memory/structs/MadeObjects.ts"
import { random } from "../../support/damage.ts"
import { eagerThread } from "../../support/secondThread.ts"
import { MadeHash, u64 } from "../guest/MadeHash.ts"

const TYPES = ["HASH", "LRU_HASH", "PERCPU_HASH", "LRU_PERCPU_HASH"] as const
const BUCKETS = 64
const ELEMENTS = 120
/** Those of a few elements. */
const PART_BYTES = 512

const header: Header = {
  schema: "single",
  version: DUMP_VERSION,
  source: { kind: "image", path: "made" },
  kernel: { release: "", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 2 },
  freeze: null
}

/** A hash map with chains of no, one and three elements, and what is in it. */
const madeHash = (type: typeof TYPES[number]) => {
  const made = new MadeHash({ type, keySize: 8, valueSize: 24 }, "rounded", BUCKETS)
  const value = (number: number) => new Uint8Array(BigUint64Array.of(1n, 2n, BigInt(number)).buffer)
  const elements = Array.from({ length: ELEMENTS }, (_, key) => made.element(u64(key), value(key), value(key + 1000)))
  const chains = Array.from({ length: BUCKETS }, (): Array<bigint> => [])
  for (const [index, element] of elements.entries()) chains[(index * 7 + (index % 3) * 2) % BUCKETS].push(element)
  for (const [bucket, chain] of chains.entries()) made.chain(bucket, chain)
  return { made, elements, bucket: (index: number) => made.buckets + BigInt(index * 16) }
}

/** The map's reader, over a copy of the memory that threads can share. */
const readerOf = ({ made }: MadeHash): MapReader => {
  const bytes = new Uint8Array(new SharedArrayBuffer(made.bytes.length))
  bytes.set(made.bytes)
  const memory = new GuestMemory([{ start: MadeKernel.base, bytes }])
  const guest = Either.getOrThrow(GuestMaps.make(Effect.runSync(GuestKernel.fromMemory(memory))))
  return guest.reader(guest.maps.items[0].info)
}

const FORMS = [ndjsonRecords, jsonDocument]

/** Both forms of a dump, and how many losses it counts. */
const printed = (reader: MapReader, limit: number, second?: Dump["second"]): ReadonlyArray<string> =>
  FORMS.map((write) => {
    const losses = new Losses()
    const pieces = write({ header, readers: [reader], programs: [], problems: [], limit, second, losses })
    return `${Buffer.concat(Array.from(pieces, (piece) => piece.slice()))} ${losses.count}`
  })

/** Both forms by one thread and by two; they must be equal. */
const compare = (reader: MapReader, second: Dump["second"], limit = Infinity, what?: string) => {
  const one = printed(reader, limit)
  assert.deepStrictEqual(printed(reader, limit, second), one, what)
  return one[0]
}

const problemIn = (records: string): unknown => JSON.parse(/^.*"mapEnd".*$/m.exec(records)![0]).problem

describe("a dump by two threads is that by one, byte for byte", () => {
  it.scoped.each(TYPES)("of %s, with any limit", (type) =>
    Effect.gen(function*() {
      const reader = readerOf(madeHash(type).made)
      const second = yield* eagerThread([reader], PART_BYTES)
      assert.strictEqual(compare(reader, second).match(/"entry"/g)?.length, ELEMENTS)
      assert.deepStrictEqual(second.shared, ["made", "made"])
      for (const limit of [1, 5, 37, ELEMENTS - 1, ELEMENTS, ELEMENTS + 1]) compare(reader, second, limit)
    }))

  it.scoped.each(TYPES)(
    "of %s with a cycle, pointers to nothing and a chain that leads into another",
    (type) =>
      Effect.gen(function*() {
        const { bucket, elements, made } = madeHash(type)
        const second = yield* eagerThread([readerOf(made)], PART_BYTES)
        const damages = [
          [elements[70], elements[70], "chain is a cycle"],
          [bucket(40), NOWHERE, "is not mapped (and 1 more)"],
          [bucket(20), elements[100], "is not mapped (and"],
          [made.valueAt(elements[3]), NOWHERE, type.includes("PERCPU") ? "(and 3 more)" : "(and"]
        ] as const
        for (const [at, word, text] of damages) {
          made.set64(at, word)
          assert.include(JSON.stringify(problemIn(compare(readerOf(made), second))), text)
        }
      })
  )

  it.scoped("where chains that lead into one another hold more than the map can", () =>
    Effect.gen(function*() {
      const { elements, made } = madeHash("HASH")
      made.chain(0, elements)
      for (let bucket = 1; bucket < BUCKETS; bucket++) made.set64(made.buckets + BigInt(bucket * 16), elements[0])
      const reader = readerOf(made)
      const records = compare(reader, yield* eagerThread([reader], PART_BYTES))
      assert.match(
        JSON.stringify(problemIn(records)),
        /bucket \d\d: more elements than the map can hold \(\d+\); walk ended/
      )
    }))

  it.scoped("where the buckets cannot be read", () =>
    Effect.gen(function*() {
      const { made } = madeHash("HASH")
      const second = yield* eagerThread([readerOf(made)], PART_BYTES)
      made.set64(made.address + 72n, NOWHERE)
      assert.match(JSON.stringify(problemIn(compare(readerOf(made), second))), /bucket 0: 0x[0-9a-f]+ is not mapped/)
    }))

  it.scoped.each(TYPES)("of %s, damaged at random", (type) =>
    Effect.gen(function*() {
      const { bucket, elements, made } = madeHash(type)
      const second = yield* eagerThread([readerOf(made)], PART_BYTES)
      const whole = made.made.bytes.slice()
      const places = [
        ...elements.flatMap((element) => [element, element, made.valueAt(element)]),
        ...Array.from({ length: BUCKETS }, (_, index) => bucket(index))
      ]
      for (let seed = 0; seed < 60; seed++) {
        const pick = random(seed)
        made.made.bytes.set(whole)
        for (let left = 1 + pick(3); left > 0; left--) {
          const element = elements[pick(ELEMENTS)]
          const values = [
            element,
            element + 8n,
            bucket(pick(BUCKETS)),
            NOWHERE,
            0n,
            1n,
            BigInt(pick(2 ** 30)),
            made.address
          ]
          made.set64(places[pick(places.length)], values[pick(values.length)])
        }
        compare(readerOf(made), second, Infinity, `seed ${seed}`)
      }
      assert.isAbove(second.shared.length, 60)
    }))
})

describe("the second thread", () => {
  it.scoped("is not started for few entries, or for memory that is not shared", () =>
    Effect.gen(function*() {
      const { made } = madeHash("HASH")
      assert.isUndefined(yield* secondThread([readerOf(made)], Infinity))
      const guest = Either.getOrThrow(GuestMaps.make(made.kernel))
      const own = guest.reader(guest.maps.items[0].info)
      assert.isUndefined(own.elsewhere?.())
      const second = yield* eagerThread([readerOf(made)], PART_BYTES)
      compare(own, second)
      assert.deepStrictEqual(second.shared, [])
    }))

  it.scoped("says why it has ended; the dump is whole without it", () =>
    Effect.gen(function*() {
      const reader = readerOf(madeHash("HASH").made)
      const second = yield* eagerThread([reader], PART_BYTES)
      // a walk over no memory at all, which our own side never asks for
      second.share(
        {
          walk: { space: { regions: [] } },
          key: { size: 8 },
          value: { size: 8 },
          parts: { words: Int32Array.of(9), count: 9 }
        } as unknown as WalkTask
      )
      assert.match(yield* second.ended, /at least one byte of memory/)
      compare(reader, { shares: second.shares, share: () => undefined })
    }))

  it.effect("may end in the middle of a map: the dump goes on without it, byte for byte", () =>
    Effect.gen(function*() {
      const reader = readerOf(madeHash("HASH").made)
      const scope = yield* Scope.make()
      const second = yield* Scope.extend(eagerThread([reader], PART_BYTES), scope)
      for (const [index, write] of FORMS.entries()) {
        const pieces = write({ header, readers: [reader], programs: [], problems: [], limit: Infinity, second })
        const written = [pieces.next().value!.slice()]
        if (index === FORMS.length - 1) {
          yield* Scope.close(scope, Exit.void)
          assert.strictEqual(yield* second.ended, "exit code 1")
        }
        for (const piece of pieces) written.push(piece.slice())
        assert.strictEqual(`${Buffer.concat(written)} 0`, printed(reader, Infinity)[index])
      }
    }))

  it("is a program without Schema, which takes longer to load than all the rest", () => {
    assert.notInclude(readFileSync("dist/bin/walk.cjs", "latin1"), "effect/Schema")
    assert.include(readFileSync("dist/bin/main.cjs", "latin1"), "effect/Schema")
  })
})
