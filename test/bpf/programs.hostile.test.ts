import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { listLinks } from "../../src/bpf/LinkWalk.ts"
import { writeMaps } from "../../src/bpf/MapWrite.ts"
import { listPrograms } from "../../src/bpf/ProgramWalk.ts"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { compileBpf, HostLive, scratch } from "../support/guest.ts"

/** Cases tried, seconds they may take together, and the seed that repeats them. */
const CASES = Number(process.env["KTSTR_HOSTILE_CASES"] ?? 3000)
const SECONDS = 60
const SEED = Number(process.env["KTSTR_HOSTILE_SEED"] ?? Date.now() % 2 ** 31)
/** No case may hold the thread longer, in milliseconds. */
const MOST_MILLIS = 20_000
const MOST_OUTPUT = 64 * 2 ** 20

const sources = new URL("../bpf-src/", import.meta.url).pathname

/** mulberry32, so that a seed repeats a run. */
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
  override copy(pa: number, out: Uint8Array): boolean {
    if (this.watching) { for (let at = pa - pa % 8; at < pa + Math.min(out.length, 2048); at += 8) this.looked.add(at) }
    return super.copy(pa, out)
  }
}

/** A copy of the memory of a guest with programs attached in every way. */
const guestBytes = Effect.gen(function*() {
  const directory = yield* scratch
  const objects = yield* compileBpf(directory, "programs")
  const attach = join(directory, "attach")
  yield* Effect.promise(() => promisify(execFile)("gcc", ["-static", "-O1", `${sources}attach.c`, "-o", attach]))
  const { kernel } = yield* bootAndFreeze({
    kernel: "debian:6.12-cloud",
    cpus: 2,
    memoryMib: 256,
    includes: ["/usr/sbin/bpftool", ...objects, attach, `${sources}programs-fill.sh`],
    script: "sh /include-files/programs-fill.sh",
    timeout: "3 minutes"
  })
  return Buffer.concat(kernel.memory.regions.map(({ bytes }) => bytes))
}).pipe(Effect.scoped, Effect.provide(HostLive))

describe("programs, links and writes in damaged memory", () => {
  it.effect(`neither throw nor hang nor grow: ${CASES} images, seed ${SEED}`, () =>
    Effect.gen(function*() {
      const bytes = new Uint8Array(yield* guestBytes)
      const memory = new WatchedMemory([{ start: 0, bytes }], { writable: true })
      const kernel = yield* GuestKernel.fromMemory(memory)
      const view = new DataView(bytes.buffer)
      const run = Effect.gen(function*() {
        const programs = yield* Effect.either(listPrograms)
        const links = yield* Effect.either(listLinks)
        const text = JSON.stringify([programs, links])
        assert.isBelow(text.length, MOST_OUTPUT)
        // Refused in the end, so that only the search for the places is tried.
        const written = yield* Effect.either(writeMaps([
          { map: "second_map", key: 7, value: 1 },
          { path: "runs", value: 1 },
          { map: "first_map", key: 2, value: 1 }
        ]))
        assert.strictEqual(written._tag, "Left")
        return text
      }).pipe(Effect.provideService(GuestKernel, kernel))
      memory.watching = true
      const whole = yield* run
      memory.watching = false
      const words = Array.from(memory.looked)
      assert.isAbove(words.length, 1000)
      const pick = random(SEED)
      const edges = [0n, 1n, 2n, 0xffn, 0xffff_ffffn, 0x7fff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn]
      const damage = (at: number): void => {
        const word = view.getBigUint64(at, true)
        const other = view.getBigUint64(words[pick(words.length)], true)
        const near = word + BigInt(pick(512) * 8 - 2048)
        const changed = [word ^ (1n << BigInt(pick(64))), edges[pick(edges.length)], other, near][pick(4)]
        view.setBigUint64(at, BigInt.asUintN(64, changed), true)
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
        if ((yield* run) !== whole) changed++
        assert.isBelow(performance.now() - start, MOST_MILLIS, `case ${cases} of seed ${SEED}`)
        for (const [at, word] of before.reverse()) view.setBigUint64(at, word, true)
      }
      kernel.space.flush()
      assert.strictEqual(yield* run, whole, "all damage was undone")
      assert.isAtLeast(cases, 200, "cases that fit into the time")
      assert.isAtLeast(changed, cases / 20, "damage that was noticed")
    }), 240_000)
})
