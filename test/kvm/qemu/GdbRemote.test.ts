import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { requireProgram } from "../../../src/core/process/Programs.ts"
import { runChild } from "../../../src/kvm/qemu/ChildProcess.ts"
import { connectGdb, GdbPackets, type Received } from "../../../src/kvm/qemu/GdbRemote.ts"

/** A server that waits for a command, then says `text`. */
const peer = (text: string) =>
  Effect.map(
    runChild(
      "/bin/sh",
      ["-c", `dd bs=1 count=5 status=none <&3 >&2; printf "$0" >&3; sleep 60`, text],
      ["null", "null", "null", "socket"]
    ),
    (child) => connectGdb(child.socket(3), () => undefined)
  )

describe("gdb's remote protocol", () => {
  it.scopedLive(
    "is what QEMU speaks: it answers while the guest stands, and says once that a guest which ran stands",
    () =>
      Effect.gen(function*() {
        const qemu = yield* requireProgram("qemu-system-x86_64", "it is what we test against", "qemu-system-x86")
        const words = "-S -nodefaults -display none -chardev socket,id=g,fd=3 -gdb chardev:g".split(" ")
        const child = yield* runChild(qemu, words, ["null", "null", "null", "socket"])
        let stops = 0
        const gdb = connectGdb(child.socket(3), () => stops++)
        assert.match(yield* gdb.ask("qSupported"), /PacketSize=/)
        assert.strictEqual(yield* gdb.ask("Z2,7000,4"), "OK")
        assert.strictEqual(yield* gdb.ask("z2,7000,4"), "OK")
        assert.match(yield* gdb.ask("z2,7000,4"), /^E/)
        assert.strictEqual(yield* gdb.ask("QStartNoAckMode"), "")
        assert.strictEqual(yield* gdb.ask("Z2,0,1000"), "OK") // what the firmware writes first
        assert.strictEqual(stops, 0)
        yield* gdb.resume
        assert.match(yield* gdb.ask("m0,8"), /^[0-9a-f]{16}$/) // not before it stands
        assert.strictEqual(stops, 1)
        yield* child.kill
        assert.match((yield* Effect.flip(gdb.lost)).message, /^QEMU's gdb server, its connection: .+/)
        assert.match((yield* Effect.flip(gdb.ask("?"))).message, /^QEMU's gdb server, \?: .+/)
        assert.match((yield* Effect.flip(gdb.resume)).message, /^QEMU's gdb server, c: .+/)
      }),
    60_000
  )

  it("is read the same in whatever pieces it comes", () => {
    const text = "+$OK#9a+$T05thread:01;watch:ffffffff81000008;#54$#00"
    const all: ReadonlyArray<Received> = [
      { ack: true },
      { packet: "OK" },
      { ack: true },
      { packet: "T05thread:01;watch:ffffffff81000008;" },
      { packet: "" }
    ]
    for (let first = 0; first <= text.length; first++) {
      const packets = new GdbPackets()
      const pieces = [text.slice(0, first), text.slice(first)].map((piece) => Buffer.from(piece))
      assert.deepStrictEqual(pieces.flatMap((piece) => [...packets.take(piece)]), all)
    }
  })

  for (
    const [says, text, why] of [
      ["a packet with a wrong checksum", "+$OK#9b", "a packet whose checksum is 9a, not 9b"],
      ["a packet without an end", `+$${"x".repeat(10_000)}`, "a packet without an end"],
      ["that ours was wrong", "-", "neither a packet nor its receipt: byte 0x2d"],
      ["what is no packet", "\\033[31m", "neither a packet nor its receipt: byte 0x1b"]
    ] as const
  ) {
    it.scopedLive(`fails for good where the server says ${says}`, () =>
      Effect.gen(function*() {
        const gdb = yield* peer(text)
        assert.strictEqual((yield* Effect.flip(gdb.ask("?"))).message, `QEMU's gdb server, ?: ${why}`)
        assert.strictEqual((yield* Effect.flip(gdb.ask("?"))).message, `QEMU's gdb server, ?: ${why}`)
        assert.strictEqual((yield* Effect.flip(gdb.lost)).detail, why)
      }), 20_000)
  }

  it.scopedLive("fails where a guest that was let run is said to have ended", () =>
    Effect.gen(function*() {
      const gdb = yield* peer("+$W00#b7")
      yield* gdb.resume
      assert.strictEqual((yield* Effect.flip(gdb.lost)).detail, "not that the guest stands: W00")
    }), 20_000)

  it.scopedLive(
    "fails for good where a guest that is to be let run is not said to stand",
    () =>
      Effect.gen(function*() {
        const gdb = yield* peer("+")
        yield* gdb.resume
        const why = "the guest was not said to stand"
        assert.strictEqual((yield* Effect.flip(gdb.resume)).message, `QEMU's gdb server, c: ${why}`)
        assert.strictEqual((yield* Effect.flip(gdb.ask("?"))).message, `QEMU's gdb server, ?: ${why}`)
        assert.strictEqual((yield* Effect.flip(gdb.lost)).detail, why)
      }),
    20_000
  )
})
