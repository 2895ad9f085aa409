import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { requireProgram } from "../../../src/core/process/Programs.ts"
import { runChild } from "../../../src/kvm/qemu/ChildProcess.ts"
import { connect } from "../../../src/kvm/qemu/Qmp.ts"

const monitor = Effect.gen(function*() {
  const qemu = yield* requireProgram("qemu-system-x86_64", "it is what we test against", "qemu-system-x86")
  const words = "-S -machine none -nodefaults -display none -chardev socket,id=m,fd=3 -mon m,mode=control".split(" ")
  const child = yield* runChild(qemu, words, ["null", "null", "null", "socket"])
  return { child, qmp: connect(child.socket(3)) }
})

/** A peer that says `text` and, unless it is to stay, hangs up. */
const peer = (text: string, then = "true") =>
  Effect.map(
    runChild("/bin/sh", ["-c", `printf '%s\\n' "$0" >&3; ${then}`, text], ["null", "null", "null", "socket"]),
    (child) => connect(child.socket(3))
  )

describe("Qmp", () => {
  it.scopedLive("greets, asks and reads QEMU's answers in their order", () =>
    Effect.gen(function*() {
      const { qmp } = yield* monitor
      yield* qmp.ready
      const status = qmp.execute("query-status", Schema.Struct({ status: Schema.String, running: Schema.Boolean }))
      const version = qmp.execute("query-version", Schema.Struct({ qemu: Schema.Struct({ major: Schema.Int }) }))
      const [first, second] = yield* Effect.all([status, version], { concurrency: 2 })
      assert.strictEqual(first.status, "prelaunch")
      assert.isAtLeast(second.qemu.major, 5)
    }))

  it.scopedLive("tells a refusal, an answer of another shape and a monitor that has gone apart", () =>
    Effect.gen(function*() {
      const { child, qmp } = yield* monitor
      yield* qmp.ready
      const refused = yield* Effect.flip(qmp.execute("no-such-command", Schema.Unknown))
      assert.strictEqual(
        refused.message,
        "QEMU's monitor, no-such-command: refused: The command no-such-command has not been found"
      )
      const unreadable = yield* Effect.flip(qmp.execute("query-status", Schema.Struct({ nonsense: Schema.Int })))
      assert.strictEqual(unreadable.reason, "unreadable")
      yield* Effect.ignore(qmp.execute("quit", Schema.Unknown))
      assert.deepStrictEqual(yield* child.exit, { status: 0, signal: undefined })
      const closed = yield* Effect.flip(qmp.execute("query-status", Schema.Unknown))
      assert.strictEqual(closed.message, "QEMU's monitor, query-status: closed: the connection has ended")
    }))

  it.scopedLive("gives up on a peer that speaks no QMP or hangs up in the middle", () =>
    Effect.gen(function*() {
      const junk = yield* Effect.flip((yield* peer("SSH-2.0-nonsense", "exec sleep 20")).ready)
      assert.strictEqual(junk.message, "QEMU's monitor, qmp_capabilities: closed: not a QMP message: SSH-2.0-nonsense")
      const cut = yield* Effect.flip((yield* peer(`{"QMP": {}}`)).ready)
      assert.strictEqual(cut.reason, "closed")
    }))

  it.scopedLive("ignores events and answers to nobody", () =>
    Effect.gen(function*() {
      const lines = [`{"QMP":{}}`, `{"event":"STOP"}`, `{"return":{},"id":99}`, `{"return":{},"id":1}`]
      yield* (yield* peer(lines.join("\n"), "exec sleep 20")).ready
    }))
})
