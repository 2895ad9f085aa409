import { assert, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Virtio } from "../../../src/kvm/native/abi/VirtioAbi.ts"
import { makeVirtioBlock } from "../../../src/kvm/native/virtio/VirtioBlock.ts"
import { makeVirtioConsole } from "../../../src/kvm/native/virtio/VirtioConsole.ts"
import type { VirtioDevice } from "../../../src/kvm/native/virtio/VirtioDevice.ts"
import { guardedMemory, wellBehaved } from "./support/virtioDriver.ts"

const RUNS = 15_000

// two pieces of memory that touch, then a hole, then one more
const regions = [
  { start: 0, length: 0x10000 },
  { start: 0x10000, length: 0x2000 },
  { start: 0x20000, length: 0x1000 }
]
const BASE = 0x4000

const edges = [
  0,
  1,
  2,
  7,
  8,
  0x7f,
  0x80,
  0xff,
  0xfff,
  0x7fff,
  0x8000,
  0xffff,
  0x10000,
  0x11ff8,
  0x12000,
  0x20ff0,
  0x21000
]
const number = FastCheck.oneof(
  FastCheck.constantFrom(...edges, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff),
  FastCheck.nat(0x12010),
  FastCheck.nat(20),
  FastCheck.integer({ min: 0, max: 0xffffffff })
)
const registers = Object.entries(Virtio).flatMap(([name, offset]) => /^VIRTIO_MMIO_(?!INT_)/.test(name) ? [offset] : [])
/** Where a number is set: anywhere in a queue's table and rings, mostly at their beginnings. */
const spot = FastCheck.record({
  queue: FastCheck.nat(1),
  part: FastCheck.constantFrom(0, 0x1000, 0x2000),
  offset: FastCheck.oneof({ weight: 3, arbitrary: FastCheck.nat(64) }, FastCheck.nat(0x1000))
})
const step = FastCheck.oneof(
  {
    weight: 4,
    arbitrary: FastCheck.record({
      kind: FastCheck.constant("poke" as const),
      spot,
      value: number,
      length: FastCheck.constantFrom(1, 2, 4)
    })
  },
  {
    weight: 3,
    arbitrary: FastCheck.record({
      kind: FastCheck.constant("offer" as const),
      /** What starts a request to a disk: its type and its sector. */
      request: FastCheck.tuple(
        FastCheck.oneof(FastCheck.constantFrom(0, 1, 4, 8, 11), number),
        FastCheck.oneof({ weight: 3, arbitrary: FastCheck.nat(17) }, number)
      ),
      queue: FastCheck.nat(1),
      lengths: FastCheck.array(FastCheck.oneof(FastCheck.nat(600), FastCheck.constantFrom(512, 1024)), {
        minLength: 1,
        maxLength: 4
      }),
      writable: FastCheck.nat(4),
      head: FastCheck.nat(4)
    })
  },
  {
    weight: 3,
    arbitrary: FastCheck.record({
      kind: FastCheck.constant("write" as const),
      offset: FastCheck.oneof({ weight: 9, arbitrary: FastCheck.constantFrom(...registers) }, FastCheck.nat(0xfff)),
      value: number,
      length: FastCheck.oneof({ weight: 9, arbitrary: FastCheck.constant(4) }, FastCheck.constantFrom(1, 2, 8))
    })
  },
  { weight: 4, arbitrary: FastCheck.record({ kind: FastCheck.constant("ring" as const) }) },
  {
    weight: 1,
    arbitrary: FastCheck.record({ kind: FastCheck.constant("type" as const), length: FastCheck.nat(2000) })
  },
  { weight: 1, arbitrary: FastCheck.record({ kind: FastCheck.constant("start" as const) }) }
)

/**
 * Let a driver do what it likes to `device`: nothing is thrown, no byte outside guest memory is touched, each turn comes
 * to an end, what is broken stays so until the reset; and after that the device serves a good driver.
 */
const torment = (
  device: VirtioDevice,
  steps: ReadonlyArray<typeof step extends FastCheck.Arbitrary<infer A> ? A : never>,
  type: (length: number) => void,
  fill: number
) => {
  const { guarded, memory } = guardedMemory(regions)
  for (const { bytes } of memory.regions) bytes.fill(fill)
  const driver = wellBehaved(device, memory, BASE)
  driver.start()
  const seen = { broken: 0, served: 0 }
  for (const each of steps) {
    switch (each.kind) {
      case "poke": {
        const { offset, part, queue } = each.spot
        const bytes = Uint8Array.from({ length: each.length }, (_, index) => each.value / 256 ** index)
        memory.write(BASE + queue * 0x4000 + part + offset, bytes)
        break
      }
      case "offer": {
        const queue = each.queue % device.queues.length
        const pieces = each.lengths.map((length, place) => ({
          bytes: new Uint8Array(length).fill(place + 1),
          writable: place >= each.writable
        }))
        const head = { bytes: new Uint8Array(Uint32Array.of(each.request[0], 0, each.request[1], 0).buffer) }
        driver.offer(queue, [head, ...pieces], each.head)
        break
      }
      case "write":
        driver.write(each.offset, each.value, each.length)
        driver.read(each.offset, each.length)
        break
      case "type":
        type(each.length)
        break
      case "start":
        driver.start()
        break
      case "ring": {
        driver.ring(0)
        // what a device writes may offer it more: a guest may keep it busy, a turn at a time
        for (let turn = 0; turn < 3 && driver.serve(); turn++);
        if (driver.queues.some(({ used }, index) => index < device.queues.length && memory.u16(used + 2) !== 0)) {
          seen.served++
        }
        if ((driver.read(Virtio.VIRTIO_MMIO_STATUS) & Virtio.VIRTIO_CONFIG_S_NEEDS_RESET) === 0) break
        seen.broken++
        driver.ring(0)
        const before = memory.regions.map(({ bytes }) => Buffer.from(bytes))
        assert.isFalse(driver.serve())
        assert.isTrue(memory.regions.every(({ bytes }, index) => before[index].equals(bytes)))
      }
    }
  }
  assert.isTrue(guarded())
  assert.isTrue(driver.start())
  driver.mmio.locked(() => driver.mmio.leaveWork())
  return { driver, seen }
}

it("a console withstands any driver", () => {
  const total = { broken: 0, served: 0 }
  FastCheck.assert(
    FastCheck.property(FastCheck.array(step, { maxLength: 25 }), FastCheck.constantFrom(0, 0xff), (steps, fill) => {
      const said: Array<Uint8Array> = []
      const device = makeVirtioConsole((bytes) => said.push(bytes))
      const { driver, seen } = torment(device, steps, (length) => device.receive(new Uint8Array(length)), fill)
      total.broken += seen.broken
      total.served += seen.served
      driver.exchange(1, [{ bytes: Buffer.from("well?") }])
      assert.strictEqual(Buffer.from(said.at(-1) ?? []).toString(), "well?")
      while (driver.exchange(0, [{ bytes: new Uint8Array(256), writable: true }]) !== undefined);
      device.receive(Buffer.from("well."))
      driver.mmio.locked(() => driver.mmio.leaveWork())
      while (driver.serve());
      assert.deepStrictEqual(driver.collect(0).map(({ length }) => length), [5])
    }),
    { numRuns: RUNS }
  )
  // what was tried was neither all good nor all bad
  assert.isAbove(total.broken, RUNS / 20)
  assert.isAbove(total.served, RUNS / 20)
}, 240_000)

for (const readOnly of [false, true]) {
  it(`a ${readOnly ? "read-only " : ""}disk withstands any driver`, () => {
    const directory = mkdtempSync(join(tmpdir(), "ktstr-hostile-"))
    const path = join(directory, "image")
    const content = Buffer.alloc(16 * 512, "content")
    writeFileSync(path, content)
    const fd = openSync(path, readOnly ? "r" : "r+")
    const total = { broken: 0, served: 0 }
    try {
      FastCheck.assert(
        FastCheck.property(FastCheck.array(step, { maxLength: 25 }), FastCheck.constantFrom(0, 0xff), (steps, fill) => {
          const failures: Array<Error> = []
          const open = { path, fd, bytes: content.length, readOnly }
          const device = makeVirtioBlock(open, "disk", (error) => failures.push(error))
          const { driver, seen } = torment(device, steps, () => {}, fill)
          total.broken += seen.broken
          total.served += seen.served
          const head = Buffer.alloc(16) // read sector 0
          const back = driver.exchange(0, [{ bytes: head }, { bytes: new Uint8Array(513), writable: true }])
          const now = readFileSync(path)
          assert.deepStrictEqual(back, Uint8Array.from([...now.subarray(0, 512), Virtio.VIRTIO_BLK_S_OK]))
          assert.strictEqual(now.length, content.length)
          if (readOnly) assert.isTrue(now.equals(content))
          assert.deepStrictEqual(failures, [])
        }),
        { numRuns: RUNS }
      )
      assert.isAbove(total.broken, RUNS / 20)
      assert.isAbove(total.served, RUNS / 20)
      assert.strictEqual(readFileSync(path).equals(content), readOnly)
    } finally {
      closeSync(fd)
      rmSync(directory, { recursive: true })
    }
  }, 240_000)
}
