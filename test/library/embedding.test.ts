import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { EntryWalk } from "../../src/bpf/EntryWalk.ts"
import { MapAccessor } from "../../src/bpf/MapAccessor.ts"
import { MapInfo } from "../../src/bpf/MapInfo.ts"
import type { MapReader } from "../../src/bpf/MapReader.ts"
import { DUMP_VERSION, type Header } from "../../src/bpf/Report.ts"
import { watchMaps } from "../../src/bpf/report/MapWatch.ts"
import { diffSnapshots, sideOfReaders } from "../../src/bpf/report/SnapshotDiff.ts"
import { indexCodec } from "../../src/bpf/values/IndexCodec.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import { WalkProblems } from "../../src/core/WalkProblems.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { madeElf } from "../memory/MadeElf.ts"
import { LOADED, MadeKernel } from "../memory/MadeKernel.ts"

const info = new MapInfo({
  id: 1,
  name: "endless",
  type: "array",
  flags: 0,
  keySize: 4,
  valueSize: 4,
  maxEntries: 1,
  keyTypeId: 0,
  valueTypeId: 0,
  btfId: null
})

/** A walk that never ends by itself: only a turn of the event loop can stop what reads it. */
class EndlessWalk implements EntryWalk {
  readonly problems = new WalkProblems()
  readonly keyView = new DataView(new ArrayBuffer(4))
  readonly keyAt = 0
  readonly keyLength = 4
  readonly valueView = new DataView(new ArrayBuffer(4))
  readonly valueAt = 0
  readonly valueLength = 4
  private index = 0

  next(): boolean {
    this.keyView.setUint32(0, this.index++ % 1000, true)
    return true
  }

  value(): boolean {
    return true
  }
}

const endless: MapReader = {
  info,
  consistency: "frozen",
  key: indexCodec,
  value: indexCodec,
  cpus: null,
  walk: () => new EndlessWalk(),
  details: null,
  problem: null
}
const header: Header = {
  schema: "single",
  version: DUMP_VERSION,
  source: { kind: "image", path: "a" },
  kernel: { release: "6.12", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 1 },
  freeze: null
}
const accessor = MapAccessor.make({
  maps: { items: [info], problems: [] },
  programs: { items: [], problems: [] },
  reader: () => Effect.succeed(endless)
})
const side = sideOfReaders(header, [endless], [])

describe("a read without end", () => {
  const reads: Record<string, Effect.Effect<unknown, unknown>> = {
    entries: Stream.runDrain(accessor.entries(info)),
    diffSnapshots: Stream.runDrain(diffSnapshots(side, side)),
    watchMaps: Stream.runDrain(watchMaps(Effect.succeed([endless]), "1 second"))
  }
  for (const [name, read] of Object.entries(reads)) {
    it.live(`${name}: timers and sockets go on, and it can be interrupted`, () =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(read)
        // each needs a turn of the event loop, which the read has to give
        yield* Effect.async<void>((resume) => void setTimeout(() => resume(Effect.void), 20))
        yield* Effect.promise(() => import("node:fs/promises").then(({ readFile }) => readFile("/proc/self/stat")))
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      }))
  }
})

describe("many short reads", () => {
  const shorts = { entry: [{ key: 0, value: 0 }], none: [] }
  for (const [name, entries] of Object.entries(shorts)) {
    it.live(`of ${name === "none" ? "empty maps" : "an entry each"} let the event loop turn together`, () =>
      Effect.gen(function*() {
        const maps = yield* MapAccessor
        let turns = 0
        const start = performance.now()
        const counter = setInterval(() => turns++, 1)
        while (performance.now() - start < 200) yield* Stream.runDrain(maps.entries(info))
        clearInterval(counter)
        // 25 are due; what yields by promises alone would have none
        assert.isAtLeast(turns, 3)
      }).pipe(Effect.provide(MapAccessor.layerTest({ maps: [info], entries: { endless: entries } }))))
  }
})

describe("guest memory whose scope closed", () => {
  it("reads nothing, and touches nothing", () => {
    const bytes = new Uint8Array(64).fill(7)
    const memory = new GuestMemory([{ start: 0, bytes: bytes.subarray(0, 32) }, {
      start: 64,
      bytes: bytes.subarray(32)
    }], {
      writable: true
    })
    const other = memory.borrow()
    assert.deepStrictEqual([memory.u8(0), memory.u8(64), memory.released], [7, 7, false])
    memory.release()
    assert.deepStrictEqual([memory.u8(0), memory.u8(64), memory.u32(2), memory.released], [-1, -1, -1, true])
    assert.deepStrictEqual([memory.seek(0, 1), memory.has(0, 1), memory.u64(0), memory.bytes(0, 4)], [
      false,
      false,
      undefined,
      undefined
    ])
    assert.deepStrictEqual([memory.copy(0, new Uint8Array(2)), memory.write(0, new Uint8Array(2)), memory.regions], [
      false,
      false,
      []
    ])
    assert.strictEqual(memory.view.byteLength, 0)
    assert.deepStrictEqual([other.u8(0), other.writable], [7, true], "the same memory with an end of its own")
  })

  it.live("is what an image's kernel reads then: a typed failure, where a mapping was before", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-escape-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const path = join(folder, "core")
      writeFileSync(path, madeElf([{ paddr: LOADED, bytes: made.bytes }]))
      const kernel = yield* Effect.scoped(GuestKernel.open(path))
      const address = kernel.symbol("linux_banner")
      assert.isDefined(address)
      const failed = yield* Effect.flip(kernel.read(address, 8))
      assert.strictEqual(failed._tag, "Unmapped")
      assert.match(
        failed.message,
        /^0x[0-9a-f]+ lies in memory that was released: its scope has closed, or the freeze it belongs to has ended$/
      )
      assert.isTrue(kernel.memory.released)
      assert.match(
        `${kernel.space.u32(address)} ${kernel.space.faultReason.kind} ${kernel.space.faultReason.text}`,
        /^-1 unreadable 0x[0-9a-f]+ lies in memory that was released: its scope has closed/
      )
    }).pipe(Effect.scoped, Effect.provide(NativeKoffi.layer)))
})
