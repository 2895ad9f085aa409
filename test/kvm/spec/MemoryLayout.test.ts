import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { closeSync, ftruncateSync, openSync, unlinkSync, writeSync } from "node:fs"
import { requireProgram } from "../../../src/core/process/Programs.ts"
import { runChild } from "../../../src/kvm/qemu/ChildProcess.ts"
import { connect } from "../../../src/kvm/qemu/Qmp.ts"
import { ramRanges, regionsOf } from "../../../src/kvm/spec/MemoryLayout.ts"
import { writtenParts } from "../../../src/memory/GuestMemory.ts"

/** A stopped QEMU whose memory is a sparse file that no directory holds. */
const stopped = (machine: string, mib: number) =>
  Effect.gen(function*() {
    const path = `/dev/shm/ktstr-layout-${process.pid}`
    const ram = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const fd = openSync(path, "wx+")
        unlinkSync(path)
        ftruncateSync(fd, mib * 2 ** 20)
        return fd
      }),
      (fd) => Effect.sync(() => closeSync(fd))
    )
    const qemu = yield* requireProgram("qemu-system-x86_64", "it is what we test against", "qemu-system-x86")
    const backend = `memory-backend-file,id=ram,mem-path=/proc/self/fd/4,share=on,size=${mib}M`
    const child = yield* runChild(
      qemu,
      [
        "-S -nodefaults -no-user-config -display none -accel tcg -cpu max -chardev socket,id=m,fd=3 -mon m,mode=control",
        `-machine ${machine},memory-backend=ram -m ${mib}M -object ${backend}`
      ].flatMap((words) => words.split(" ")),
      ["null", "null", "null", "socket", ram]
    )
    const qmp = connect(child.socket(3))
    yield* qmp.ready
    const monitor = (line: string) => qmp.execute("human-monitor-command", Schema.String, { "command-line": line })
    return { ram, monitor, mtree: yield* monitor("info mtree -f") }
  })

describe("ramRanges", () => {
  for (const [machine, mib] of [["pc", 512], ["pc", 5120], ["q35", 5120]] as const) {
    it.scopedLive(`finds guest memory where QEMU has it: ${machine} with ${mib} MiB`, () =>
      Effect.gen(function*() {
        const { monitor, mtree, ram } = yield* stopped(machine, mib)
        const ranges = yield* ramRanges(mtree, "ram", mib * 2 ** 20)
        assert.strictEqual(ranges.length, mib > 3072 ? 3 : 2)
        // firmware still shadows 256 KiB below 1 MiB
        assert.strictEqual(ranges.reduce((sum, { length }) => sum + length, 0), mib * 2 ** 20 - 2 ** 18)
        const places = ranges.flatMap(({ length, offset, start }) => [
          { address: start, offset },
          { address: start + length - 4, offset: offset + length - 4 }
        ])
        for (const [index, { offset }] of places.entries()) {
          writeSync(ram, new Uint8Array(new Uint32Array([0xcafe0000 + index]).buffer), 0, 4, offset)
        }
        for (const [index, { address }] of places.entries()) {
          const seen = yield* monitor(`xp /1xw 0x${address.toString(16)}`)
          assert.strictEqual(seen.trim().split(": ")[1], `0xcafe000${index}`)
        }
      }))
  }

  it.scopedLive("names what is wrong when the backend is not there or smaller than said", () =>
    Effect.gen(function*() {
      const { mtree } = yield* stopped("pc", 64)
      const message = (text: string, backend: string, size: number) =>
        Either.match(ramRanges(text, backend, size), { onLeft: (error) => error.message, onRight: () => "" })
      assert.match(message(mtree, "other", 2 ** 26), /expected at least one range of "other"$/)
      assert.match(message(mtree, "ram", 2 ** 20), /expected a range inside the backend's 1048576 bytes$/)
      assert.match(message("nonsense", "ram", 2 ** 20), /expected a flat view of the address space "memory"$/)
    }))
})

describe("regionsOf", () => {
  it("cuts ranges at window borders", () => {
    const windows = [new Uint8Array(16), new Uint8Array(16), new Uint8Array(8)]
    windows.forEach((window, index) => window.fill(index + 1))
    const regions = regionsOf(
      [{ start: 0, length: 12, offset: 0 }, { start: 100, length: 28, offset: 12 }],
      windows,
      16
    )
    assert.deepStrictEqual(regions.map(({ nextWritten }) => nextWritten), Array(4).fill(undefined))
    assert.deepStrictEqual(regions.map(({ bytes, start }) => [start, [...bytes]]), [
      [0, Array(12).fill(1)],
      [100, Array(4).fill(1)],
      [104, Array(16).fill(2)],
      [120, Array(8).fill(3)]
    ])
  })

  it("tells what of each was ever written and reads it, if the backend is a file", () => {
    const windows = [new Uint8Array(16), new Uint8Array(16)]
    const written = (at: number) => [[4, 6], [14, 30]].find(([, to]) => to > at) as [number, number] | undefined
    const read = (at: number, out: Uint8Array) => {
      out.forEach((_, index) => out[index] = at + index)
      return true
    }
    const backend = { nextWritten: written, read }
    const [low, high] = regionsOf([{ start: 100, length: 20, offset: 10 }], windows, 16, backend)
    assert.deepStrictEqual([...writtenParts(low)], [[4, 6]])
    assert.deepStrictEqual([...writtenParts(high)], [[0, 14]])
    assert.deepStrictEqual([...writtenParts(high, 3, 9)], [[3, 9]])
    const out = new Uint8Array(3)
    assert.isTrue(low.read!(2, out))
    assert.deepStrictEqual([...out], [12, 13, 14])
    assert.isTrue(high.read!(1, out))
    assert.deepStrictEqual([...out], [17, 18, 19])
  })
})
