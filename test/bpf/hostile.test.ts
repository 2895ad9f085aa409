import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { readFileSync } from "node:fs"
import { ndjsonRecords } from "../../src/bpf/DumpWriter.ts"
import { GuestMaps } from "../../src/bpf/GuestMaps.ts"
import type { MapInfo } from "../../src/bpf/MapInfo.ts"
import type { Header } from "../../src/bpf/Report.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { guestImage } from "../support/image.ts"

/** Cases tried, seconds they may take together, and the seed that repeats them. */
const CASES = Number(process.env["KTSTR_HOSTILE_CASES"] ?? 3000)
const SECONDS = Number(process.env["KTSTR_HOSTILE_SECONDS"] ?? 120)
const SEED = Number(process.env["KTSTR_HOSTILE_SEED"] ?? Date.now() % 2 ** 31)
/** No damaged image of this guest has more to say than this, in bytes; a whole one prints 2 MB. */
const MOST_OUTPUT = 256 * 2 ** 20
/** No case may hold the thread longer, in milliseconds. */
const MOST_MILLIS = 20_000

/** A small generator of pseudo-random numbers (mulberry32), so that a seed repeats a run. */
const random = (seed: number) => (below: number): number => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return Math.floor(((t ^ (t >>> 14)) >>> 0) / 2 ** 32 * below)
}

/** Memory that remembers which 8-byte words were looked at while `watching`. */
class WatchedMemory extends GuestMemory {
  readonly looked = new Set<number>()
  watching = false
  override seek(pa: number, len: number): boolean {
    const there = super.seek(pa, len)
    if (this.watching && there && len > 1) {
      for (let at = pa - pa % 8; at < pa + Math.min(len, 512); at += 8) this.looked.add(at)
    }
    return there
  }
}

const header: Header = {
  schema: "single",
  version: 1,
  source: { kind: "image", path: "guest.mem" },
  kernel: { release: "", pageTableLevels: 5, kaslrOffset: "0x0", possibleCpus: 2 },
  freeze: null
}

/** Everything a dump does with the maps that are `wanted`; gives how many bytes it printed. */
const dump = (kernel: typeof GuestKernel.Service, wanted: (info: MapInfo) => boolean): number => {
  const guest = GuestMaps.make(kernel)
  if (Either.isLeft(guest)) return 0
  const { maps, programs } = guest.right
  let printed = 0
  const readers = maps.items.filter(({ info }) => wanted(info)).map(({ info }) => guest.right.reader(info))
  const records = ndjsonRecords({ header, readers, programs: programs.items, problems: maps.problems, limit: Infinity })
  for (const piece of records) {
    printed += piece.length
    assert.isBelow(printed, MOST_OUTPUT)
  }
  return printed
}

/** The words of these maps alone are damaged: among those of large hash maps they would hardly ever be hit. */
const others = ({ type }: MapInfo): boolean =>
  !["hash", "lru_hash", "percpu_hash", "array", "percpu_array"].includes(type)

describe("a dump of damaged memory", () => {
  for (
    const [what, wanted, least] of [
      ["all maps", () => true, 2 ** 20],
      ["maps other than hashes and arrays", others, 2 ** 15]
    ] as const
  ) {
    it.effect(
      `neither throws nor hangs nor grows: ${what}, ${CASES} images, seed ${SEED}`,
      () =>
        Effect.gen(function*() {
          const bytes = new Uint8Array(readFileSync(yield* guestImage))
          const memory = new WatchedMemory([{ start: 0, bytes }])
          const kernel = yield* GuestKernel.fromMemory(memory)
          memory.watching = true
          const whole = dump(kernel, wanted)
          memory.watching = false
          assert.isAbove(whole, least)
          const words = Array.from(memory.looked)
          const pick = random(SEED)
          const view = new DataView(bytes.buffer)
          const edges = [0n, 1n, 2n, 0xffn, 0xffff_ffffn, 0x7fff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn]
          const damage = (at: number): void => {
            const word = view.getBigUint64(at, true)
            const other = view.getBigUint64(words[pick(words.length)], true)
            const near = word + BigInt(pick(512) * 8 - 2048)
            view.setBigUint64(
              at,
              BigInt.asUintN(64, [word ^ (1n << BigInt(pick(64))), edges[pick(edges.length)], other, near][pick(4)]),
              true
            )
          }
          const end = performance.now() + SECONDS * 1000
          let changed = 0
          let cases = 0
          for (; cases < CASES && performance.now() < end; cases++) {
            const before = Array.from({ length: 1 + pick(8) }, () => {
              const at = words[pick(words.length)]
              return [at, view.getBigUint64(at, true)] as const
            })
            for (const [at] of before) damage(at)
            kernel.space.flush()
            const start = performance.now()
            if (dump(kernel, wanted) !== whole) changed++
            assert.isBelow(performance.now() - start, MOST_MILLIS, `case ${cases} of seed ${SEED}`)
            for (const [at, word] of before.reverse()) view.setBigUint64(at, word, true)
          }
          kernel.space.flush()
          assert.strictEqual(dump(kernel, wanted), whole, "all damage was undone")
          assert.isAtLeast(cases, 1000, "cases that fit into the time")
          assert.isAtLeast(changed, cases / 20, "damage that the dump noticed")
        }),
      300_000
    )
  }
})
