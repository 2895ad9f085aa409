import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { crc32 } from "node:zlib"
import { Mailbox } from "../../../src/harness/agent/Mailbox.ts"
import { MOST_WORKERS, PAGE_BYTES, RECORD_KINDS } from "../../../src/harness/agent/Protocol.ts"
import { decodeRecords } from "../../../src/harness/agent/Records.ts"
import { GuestMemory } from "../../../src/memory/GuestMemory.ts"

/** A record as the agent writes it. */
const record = (kind: number, sequence: number, payload: Uint8Array): Uint8Array => {
  const out = new Uint8Array(32 + Math.ceil(payload.length / 8) * 8)
  const view = new DataView(out.buffer)
  view.setUint32(0, 0x3152544b, true)
  view.setUint16(4, kind, true)
  view.setUint32(8, payload.length, true)
  view.setUint32(12, sequence, true)
  view.setBigUint64(16, 1000n, true)
  out.set(payload, 32)
  view.setUint32(24, crc32(out.subarray(0, 32 + payload.length)), true)
  return out
}

const line = (text: string): Uint8Array => Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]), Buffer.from(text)])
const log = (...records: ReadonlyArray<Uint8Array>): Uint8Array => new Uint8Array(Buffer.concat(records))

describe("records", () => {
  it("are read in order, a kind that is not known too", () => {
    const { damage, records } = decodeRecords(
      log(
        record(RECORD_KINDS.line, 0, line("6,1,2,-;hello")),
        record(99, 1, new Uint8Array(3)),
        record(11, 2, new Uint8Array())
      )
    )
    assert.strictEqual(damage, null)
    assert.deepStrictEqual(records, [
      { kind: "line", atNs: 1000, source: "kernel", command: 0, text: "6,1,2,-;hello" },
      { kind: "unknown", atNs: 1000, number: 99, bytes: 3 },
      { kind: "done", atNs: 1000 }
    ])
  })

  it("that are missing are counted", () => {
    const { damage, records } = decodeRecords(log(record(11, 0, new Uint8Array()), record(11, 4, new Uint8Array())))
    assert.strictEqual(records.length, 2)
    assert.strictEqual(damage, "3 records had no room in the agent's log")
  })

  it("with any bit turned over are refused from there on", () => {
    const whole = log(record(RECORD_KINDS.line, 0, line("first")), record(RECORD_KINDS.line, 1, line("second")))
    const padding = new Set([45, 46, 47]) // behind the first text
    for (let at = 0; at < 48; at++) {
      const broken = whole.slice()
      broken[at] ^= 0x10
      const { damage, records } = decodeRecords(broken)
      if (padding.has(at)) continue
      assert.notStrictEqual(damage, null, `byte ${at}`)
      assert.deepStrictEqual(records, [], `byte ${at}`)
    }
  })

  it("that are too short for their kind are refused", () => {
    for (const kind of Object.values(RECORD_KINDS)) {
      if (kind === RECORD_KINDS.done) continue
      assert.match(decodeRecords(record(kind, 0, new Uint8Array(4))).damage ?? "", /has 4 bytes/)
    }
  })

  it("whose counts no worker can reach are refused", () => {
    const counters = (at: number, count: bigint) => {
      const payload = new Uint8Array(96)
      new DataView(payload.buffer).setBigUint64(at, count, true)
      return decodeRecords(record(RECORD_KINDS.worker, 0, payload))
    }
    for (const at of [16, 64]) {
      assert.strictEqual(counters(at, 2n ** 43n).records.length, 1)
      assert.match(counters(at, 2n ** 43n + 1n).damage ?? "", /a worker's counters are too large/)
    }
  })

  it.prop(
    "of random bytes, and of cut and changed logs, never throw",
    [FastCheck.uint8Array({ maxLength: 400 }), FastCheck.nat(200), FastCheck.nat(255)],
    ([bytes, cut, change]) => {
      decodeRecords(bytes)
      const whole = log(record(1, 0, new Uint8Array(80)), record(6, 1, new Uint8Array(144)), bytes)
      whole[cut] = change
      decodeRecords(whole.subarray(0, whole.length - cut))
    },
    { fastCheck: { numRuns: 3000 } }
  )
})

/** Memory of 300 pages whose page 3 is the head of a mailbox with the others behind it, backwards. */
const made = (workers: number) => {
  const bytes = new Uint8Array(300 * PAGE_BYTES)
  const view = new DataView(bytes.buffer)
  const at = 3 * PAGE_BYTES
  const pages = 1 + workers + 256
  Buffer.from("KTSTRMB1").copy(bytes, at + 8)
  const frames = Array.from({ length: pages }, (_, page) => page === 0 ? 3 : 299 - page)
  ;[1, pages, 1, workers, 1 + workers, 256].forEach((word, n) => view.setUint32(at + 16 + 4 * n, word, true))
  frames.forEach((frame, page) => {
    view.setUint32(at + 120 + 4 * page, frame, true)
    view.setUint32(frame * PAGE_BYTES, 0x4750544b, true)
    view.setUint32(frame * PAGE_BYTES + 4, page, true)
  })
  const crc = crc32(bytes.subarray(at + 120, at + 120 + 4 * pages), crc32(bytes.subarray(at + 8, at + 40)))
  view.setUint32(at + 40, crc, true)
  return { bytes, view, at, crc, frames }
}
const memoryOf = (bytes: Uint8Array) => new GuestMemory([{ start: 0, bytes }])
const whyOf = (opened: ReturnType<typeof Mailbox.open>) => Either.isLeft(opened) ? opened.left.why : "opened"

describe("a mailbox", () => {
  it("is found by its first page's frame, and its log is read over pages that lie anywhere", () => {
    const { at, bytes, crc, frames, view } = made(4)
    const text = record(RECORD_KINDS.line, 0, line("x".repeat(5000)))
    bytes.set(text.subarray(0, 4088), frames[5] * PAGE_BYTES + 8)
    bytes.set(text.subarray(4088), frames[6] * PAGE_BYTES + 8)
    view.setUint32(at + 56, text.length, true)
    view.setBigUint64(frames[2] * PAGE_BYTES + 16, 42n, true)
    const mailbox = Either.getOrThrow(Mailbox.open(memoryOf(bytes), 3, crc))
    assert.strictEqual(mailbox.counters(1).units, 42)
    const { damage, records } = decodeRecords(mailbox.log())
    assert.strictEqual(damage, null)
    assert.strictEqual(records[0].kind === "line" ? records[0].text.length : 0, 5000)
  })

  it("says what is wrong with it", () => {
    const { bytes, crc } = made(4)
    assert.strictEqual(whyOf(Mailbox.open(memoryOf(bytes), 3, crc)), "opened")
    assert.match(whyOf(Mailbox.open(memoryOf(bytes), 2 ** 30, crc)), /outside of memory/)
    assert.match(whyOf(Mailbox.open(memoryOf(bytes), 4, crc)), /not there/)
    assert.match(whyOf(Mailbox.open(memoryOf(bytes), 3, crc ^ 1)), /checksum/)
    const changed = (change: (view: DataView, at: number) => void, fix = true) => {
      const { at, bytes, view } = made(4)
      change(view, at)
      const crc = crc32(bytes.subarray(at + 120, at + 120 + 4 * 261), crc32(bytes.subarray(at + 8, at + 40)))
      if (fix) view.setUint32(at + 40, crc, true)
      return whyOf(Mailbox.open(memoryOf(bytes), 3, crc))
    }
    assert.match(changed((view, at) => view.setUint32(at + 16, 2, true)), /version 2, expected 1/)
    assert.match(changed((view, at) => view.setUint32(at + 28, MOST_WORKERS + 1, true)), /pages for/)
    assert.match(changed((view, at) => view.setUint32(at + 120 + 8, 2 ** 31, true)), /page 2 is not where it was/)
    assert.match(changed((view, at) => view.setUint32(at + 120 + 8, 3, true)), /page 2 is not where it was/)
  })

  it("whose log's length is not true gives no more than its pages", () => {
    const { at, bytes, crc, view } = made(0)
    const mailbox = Either.getOrThrow(Mailbox.open(memoryOf(bytes), 3, crc))
    view.setUint32(at + 56, 0xffffffff, true)
    assert.isAtMost(mailbox.log().length, 256 * 4088)
  })
})
