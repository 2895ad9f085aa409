import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { randomBytes } from "node:crypto"
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Virtio } from "../../../src/kvm/native/abi/VirtioAbi.ts"
import { makeVirtioBlock } from "../../../src/kvm/native/virtio/VirtioBlock.ts"
import { makeVirtioConsole, terminalSize } from "../../../src/kvm/native/virtio/VirtioConsole.ts"
import { guardedMemory, wellBehaved } from "./support/virtioDriver.ts"

const IN = 0
const OUT = 1
const text = (words: string) => ({ bytes: Buffer.from(words) })
const room = (length: number) => ({ bytes: new Uint8Array(length), writable: true })
const ram = () => guardedMemory([{ start: 0, length: 0x10000 }, { start: 0x10000, length: 0x10000 }]).memory

const console = () => {
  const said: Array<string> = []
  const device = makeVirtioConsole((bytes) => said.push(Buffer.from(bytes).toString()))
  const driver = wellBehaved(device, ram(), 0x4000)
  return { said, device, driver, accepted: driver.start() }
}

describe("the transport", () => {
  it("tells what it is, and takes the features that it offered alone", () => {
    const { accepted, driver } = console()
    assert.isTrue(accepted)
    assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_MAGIC_VALUE), 0x74726976)
    assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_VERSION), 2)
    assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_DEVICE_ID), Virtio.VIRTIO_ID_CONSOLE)
    const features = [0, 1, 2].map((select) => {
      driver.write(Virtio.VIRTIO_MMIO_DEVICE_FEATURES_SEL, select)
      return driver.read(Virtio.VIRTIO_MMIO_DEVICE_FEATURES)
    })
    assert.deepStrictEqual(features, [1, 1, 0])
    const greedy = wellBehaved(makeVirtioConsole(() => {}), ram(), 0x4000, { features: 0x101 })
    assert.isFalse(greedy.start())
  })

  it("has no queue, register or shared memory beside its own", () => {
    const { driver } = console()
    driver.write(Virtio.VIRTIO_MMIO_QUEUE_SEL, 2)
    assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_QUEUE_NUM_MAX), 0)
    driver.write(Virtio.VIRTIO_MMIO_QUEUE_READY, 1)
    assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_QUEUE_READY), 0)
    driver.write(Virtio.VIRTIO_MMIO_QUEUE_SEL, 1)
    assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_QUEUE_READY), 1)
    assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_SHM_LEN_LOW), 0xffffffff)
    assert.strictEqual(driver.read(0xff0), 0)
    assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_STATUS, 1), 0) // registers have 4 bytes
  })

  it("raises its line once for what is pending, and anew for what is left when it is acknowledged", () => {
    const { device, driver } = console()
    device.receive(Buffer.from("x"))
    driver.mmio.locked(() => driver.mmio.leaveWork())
    assert.deepStrictEqual(driver.exchange(IN, [room(4)]), new Uint8Array(Buffer.from("x")))
    driver.mmio.locked(() => driver.mmio.configure(terminalSize(80, 25)))
    assert.deepStrictEqual(driver.edges, [1])
    assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_INTERRUPT_STATUS), 3)
    driver.write(Virtio.VIRTIO_MMIO_INTERRUPT_ACK, Virtio.VIRTIO_MMIO_INT_VRING)
    assert.deepStrictEqual(driver.edges, [1, 0, 1])
    driver.write(Virtio.VIRTIO_MMIO_INTERRUPT_ACK, Virtio.VIRTIO_MMIO_INT_CONFIG)
    assert.deepStrictEqual(driver.edges, [1, 0, 1, 0])
  })

  it("does nothing before the driver is ready, then does what was rung for meanwhile", () => {
    const { driver, said } = console()
    driver.status(11)
    driver.offer(OUT, [text("early")])
    driver.ring(OUT)
    assert.isFalse(driver.serve())
    assert.deepStrictEqual(said, [])
    assert.isTrue(driver.write(Virtio.VIRTIO_MMIO_STATUS, 15))
    driver.serve()
    assert.deepStrictEqual(said, ["early"])
  })

  it("goes on from the start of its queues after a reset", () => {
    const { driver, said } = console()
    for (let round = 0; round < 3; round++) {
      driver.start()
      for (let count = 0; count < 11; count++) driver.exchange(OUT, [text(`${round}.${count} `)])
    }
    assert.strictEqual(said.join("").split(" ").length, 34)
    assert.isTrue(said.join("").endsWith("2.10 "))
  })

  it("counts its rings over 2^16", () => {
    const { driver, said } = console()
    for (let count = 0; count < 2 ** 16 + 5; count++) driver.exchange(OUT, [text("x")])
    assert.strictEqual(said.length, 2 ** 16 + 5)
    assert.strictEqual(driver.queues[OUT].seen, 5)
  })

  const broken: ReadonlyArray<readonly [string, (driver: ReturnType<typeof console>["driver"]) => void]> = [
    ["a descriptor that is not there", ({ queues, u16 }) => u16(queues[OUT].available + 4, 8)],
    ["a circle of descriptors", ({ queues, u16 }) => {
      u16(queues[OUT].table + 12, Virtio.VRING_DESC_F_NEXT)
      u16(queues[OUT].table + 14, 0)
    }],
    ["an index that jumps", ({ queues, u16 }) => u16(queues[OUT].available + 2, 9)],
    ["an address outside memory", ({ queues, u32 }) => u32(queues[OUT].table, 0x20000)],
    ["an address of 64 bits", ({ queues, u32 }) => u32(queues[OUT].table + 4, 0xffffffff)],
    ["a length up to 2^32", ({ queues, u32 }) => u32(queues[OUT].table + 8, 0xffffffff)],
    ["a list of descriptors that was not offered", ({ queues, u16 }) => u16(queues[OUT].table + 12, 4)],
    ["what is read behind what is written", ({ queues, u16 }) => {
      u16(queues[OUT].table + 12, Virtio.VRING_DESC_F_NEXT | Virtio.VRING_DESC_F_WRITE)
      u16(queues[OUT].table + 16 + 12, 0)
    }],
    ["a size that is no power of 2", ({ write }) => void write(Virtio.VIRTIO_MMIO_QUEUE_NUM, 7)],
    ["a queue that is too large", ({ write }) => void write(Virtio.VIRTIO_MMIO_QUEUE_NUM, 256)],
    ["a queue of no size", ({ write }) => void write(Virtio.VIRTIO_MMIO_QUEUE_NUM, 0)],
    ["a ring that sticks out of memory", ({ write }) => void write(Virtio.VIRTIO_MMIO_QUEUE_USED_LOW, 0x1ffc0)],
    ["a crooked table", ({ write }) => void write(Virtio.VIRTIO_MMIO_QUEUE_DESC_LOW, 0x8008)]
  ]
  for (const [what, damage] of broken) {
    it(`asks for a reset at ${what}, and works after it`, () => {
      const { driver, said } = console()
      driver.offer(OUT, [text("x")])
      damage(driver)
      driver.ring(OUT)
      assert.isFalse(driver.serve())
      assert.strictEqual(driver.status(15), 15 | Virtio.VIRTIO_CONFIG_S_NEEDS_RESET)
      assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_INTERRUPT_STATUS), Virtio.VIRTIO_MMIO_INT_CONFIG)
      driver.ring(OUT)
      driver.serve()
      assert.deepStrictEqual(said, [])
      assert.isTrue(driver.start())
      driver.exchange(OUT, [text("well again")])
      assert.deepStrictEqual(said, ["well again"])
    })
  }

  it("lets a driver that keeps its queue full wait for its next turn", () => {
    let served = 0
    const device = { ...makeVirtioConsole(() => {}) }
    const memory = ram()
    const queues = [device.queues[IN], {
      polled: true,
      serve: () => {
        served++
        driver.offer(OUT, [text("again")]) // another vCPU
        return new Uint8Array(0)
      }
    }]
    const driver = wellBehaved({ ...device, queues }, memory, 0x4000)
    driver.start()
    driver.offer(OUT, [text("first")])
    driver.ring(OUT)
    assert.isTrue(driver.serve())
    assert.isBelow(served, 2000)
    const before = served
    assert.isTrue(driver.serve())
    assert.isAbove(served, before)
  })
})

describe("a console", () => {
  it("sends what the driver gives, over any number of buffers and a border of memory, without an interrupt", () => {
    const { driver, said } = console()
    assert.deepStrictEqual(
      driver.exchange(OUT, [text("one "), text(""), text("two "), text("three")]),
      new Uint8Array(0)
    )
    driver.offer(OUT, [text("over the border")])
    driver.u32(driver.queues[OUT].table, 0x10000 - 5)
    driver.mmio.locked(() => driver.mmio.leaveWork())
    driver.serve()
    assert.strictEqual(said[0], "one two three")
    assert.strictEqual(said[1].length, 15)
    assert.deepStrictEqual(driver.edges, [])
  })

  it("keeps what is typed until there are buffers, in order, and says how much it has room for", () => {
    const { device, driver } = console()
    assert.strictEqual(device.receive(Buffer.from("hello ")), 6)
    assert.strictEqual(device.receive(Buffer.from("world")), 5)
    driver.mmio.locked(() => driver.mmio.leaveWork())
    driver.serve()
    const words = [7, 100].map((length) => Buffer.from(driver.exchange(IN, [room(length)]) ?? []).toString())
    assert.deepStrictEqual(words, ["hello w", "orld"])
    assert.isUndefined(driver.exchange(IN, [room(4)]))
    assert.strictEqual(device.receive(new Uint8Array(100_000)), 65536)
    assert.strictEqual(device.receive(new Uint8Array(1)), 0)
  })

  it("tells the terminal's size and when it changes", () => {
    const { driver } = console()
    const size = () => [0, 2].map((at) => driver.read(Virtio.VIRTIO_MMIO_CONFIG + at, 2))
    assert.deepStrictEqual(size(), [0, 0])
    const before = driver.read(Virtio.VIRTIO_MMIO_CONFIG_GENERATION)
    driver.mmio.locked(() => driver.mmio.configure(terminalSize(132, 43)))
    assert.deepStrictEqual(size(), [132, 43])
    assert.notStrictEqual(driver.read(Virtio.VIRTIO_MMIO_CONFIG_GENERATION), before)
    assert.deepStrictEqual(driver.edges, [1])
    driver.write(Virtio.VIRTIO_MMIO_CONFIG, 7)
    assert.deepStrictEqual(size(), [132, 43])
  })
})

const SECTORS = 64
const disk = ({ readOnly = false } = {}) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const directory = mkdtempSync(join(tmpdir(), "ktstr-disk-"))
        const path = join(directory, "image")
        const content = randomBytes(SECTORS * 512)
        writeFileSync(path, content)
        return { directory, path, content, fd: openSync(path, readOnly ? "r" : "r+") }
      }),
      ({ directory, fd }) =>
        Effect.sync(() => {
          closeSync(fd)
          rmSync(directory, { recursive: true })
        })
    ),
    ({ content, fd, path }) => {
      const failures: Array<string> = []
      const open = { path, fd, bytes: content.length, readOnly }
      const device = makeVirtioBlock(open, "a-disk", (error) => failures.push(error.message))
      const driver = wellBehaved(device, ram(), 0x4000)
      driver.start()
      const head = (type: number, sector: bigint) => {
        const bytes = Buffer.alloc(16)
        bytes.writeUInt32LE(type, 0)
        bytes.writeBigUInt64LE(sector, 8)
        return { bytes }
      }
      /** What was read, and the status. */
      const ask = (type: number, sector: bigint, data: Uint8Array | number) => {
        const piece = typeof data === "number" ? room(data) : { bytes: data }
        const back = driver.exchange(0, [head(type, sector), piece, room(1)])
        return { status: back?.at(-1), data: back?.subarray(0, -1) }
      }
      return { path, content, failures, driver, head, ask }
    }
  )

const { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP } = Virtio
const { VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } = Virtio

describe("a disk", () => {
  it.scoped("tells its size, and reads and writes its file", () =>
    Effect.gen(function*() {
      const { ask, content, driver, path } = yield* disk()
      assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_CONFIG), SECTORS)
      assert.deepStrictEqual(ask(VIRTIO_BLK_T_IN, 3n, 1024).data, new Uint8Array(content.subarray(3 * 512, 5 * 512)))
      const written = randomBytes(1024)
      assert.strictEqual(ask(VIRTIO_BLK_T_OUT, BigInt(SECTORS - 2), written).status, VIRTIO_BLK_S_OK)
      assert.deepStrictEqual(readFileSync(path).subarray(-1024), written)
      assert.strictEqual(ask(VIRTIO_BLK_T_FLUSH, 0n, 0).status, VIRTIO_BLK_S_OK)
      const id = ask(VIRTIO_BLK_T_GET_ID, 0n, 20)
      assert.strictEqual(Buffer.from(id.data ?? []).toString("latin1").replaceAll("\0", ""), "a-disk")
      assert.strictEqual(ask(11, 0n, 16).status, VIRTIO_BLK_S_UNSUPP) // discard was not offered
      assert.deepStrictEqual(driver.edges, [1]) // nothing was acknowledged
    }))

  it.scoped("takes a request however its bytes lie in buffers", () =>
    Effect.gen(function*() {
      const { content, driver, head } = yield* disk()
      const { bytes } = head(VIRTIO_BLK_T_IN, 1n)
      const pieces = [{ bytes: bytes.subarray(0, 5) }, { bytes: bytes.subarray(5) }, room(100), room(413)]
      const back = driver.exchange(0, pieces)
      assert.deepStrictEqual(back, Uint8Array.from([...content.subarray(512, 1024), VIRTIO_BLK_S_OK]))
    }))

  it.scoped("stays within its file", () =>
    Effect.gen(function*() {
      const { ask, content, failures, path } = yield* disk()
      const far = [BigInt(SECTORS), BigInt(SECTORS - 1), 2n ** 55n, 2n ** 63n, 2n ** 64n - 1n]
      for (const sector of far) {
        assert.strictEqual(ask(VIRTIO_BLK_T_IN, sector, 1024).status, VIRTIO_BLK_S_IOERR)
        assert.strictEqual(ask(VIRTIO_BLK_T_OUT, sector, new Uint8Array(1024)).status, VIRTIO_BLK_S_IOERR)
      }
      assert.strictEqual(ask(VIRTIO_BLK_T_OUT, 0n, new Uint8Array(100)).status, VIRTIO_BLK_S_IOERR)
      assert.deepStrictEqual(readFileSync(path), content)
      truncateSync(path, 512)
      assert.strictEqual(ask(VIRTIO_BLK_T_IN, 1n, 512).status, VIRTIO_BLK_S_IOERR)
      assert.deepStrictEqual(failures, [])
    }))

  it.scoped("is not written if it is read-only, and tells the driver that it is", () =>
    Effect.gen(function*() {
      const { ask, content, driver, path } = yield* disk({ readOnly: true })
      driver.write(Virtio.VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0)
      assert.strictEqual(driver.read(Virtio.VIRTIO_MMIO_DEVICE_FEATURES) >>> Virtio.VIRTIO_BLK_F_RO & 1, 1)
      assert.strictEqual(ask(VIRTIO_BLK_T_OUT, 0n, new Uint8Array(512)).status, VIRTIO_BLK_S_IOERR)
      assert.strictEqual(ask(VIRTIO_BLK_T_FLUSH, 0n, 0).status, VIRTIO_BLK_S_OK)
      assert.deepStrictEqual(readFileSync(path), content)
    }))

  it.scoped("asks for a reset where a request has no head or no room for its status", () =>
    Effect.gen(function*() {
      const { driver, head } = yield* disk()
      for (const pieces of [[text("short"), room(513)], [head(VIRTIO_BLK_T_IN, 0n)]]) {
        driver.start()
        assert.isUndefined(driver.exchange(0, pieces))
        assert.strictEqual(driver.status(15) & Virtio.VIRTIO_CONFIG_S_NEEDS_RESET, Virtio.VIRTIO_CONFIG_S_NEEDS_RESET)
      }
    }))

  it("gives the guest an I/O error for a call that fails, and says which", () => {
    const fd = openSync("/dev/full", "r+") // every write fails with ENOSPC
    try {
      const failures: Array<string> = []
      const open = { path: "/dev/full", fd, bytes: 4096, readOnly: false }
      const device = makeVirtioBlock(open, "full", (error) => failures.push(error.message))
      const answer = device.queues[0].serve(Buffer.concat([Buffer.from([1]), Buffer.alloc(15 + 512)]), 1)
      assert.deepStrictEqual(answer, Uint8Array.of(VIRTIO_BLK_S_IOERR))
      assert.match(failures.join(), /ENOSPC/)
    } finally {
      closeSync(fd)
    }
  })
})
