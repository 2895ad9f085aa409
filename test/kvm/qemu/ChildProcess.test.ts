import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { Socket } from "node:net"
import { Native } from "../../../src/core/Native.ts"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import { runChild } from "../../../src/kvm/qemu/ChildProcess.ts"
import { isAlive } from "../support.ts"

/** A child whose output is a pipe; our copy of the end that it writes is closed. */
const childWithPipe = Effect.gen(function*() {
  const outer = yield* Effect.scope
  const native = yield* Native
  return yield* Effect.scoped(Effect.gen(function*() {
    const { read, write } = yield* native.pipe()
    yield* Effect.addFinalizer(() => Effect.sync(() => native.close(write)))
    const output = { read: new Socket({ fd: read, writable: false }), write }
    const start = runChild("/bin/sh", ["-c", "head -c 60000 /dev/zero; exit 3"], ["null", output, "null"])
    return { child: yield* Scope.extend(start, outer), output: output.read }
  }))
})

layer(NativeKoffi.layer, { excludeTestServices: true })("a child's pipe", (it) => {
  it.scoped("is read to its end before the child counts as ended", () =>
    Effect.gen(function*() {
      const { child, output } = yield* childWithPipe
      let bytes = 0
      output.on("data", (piece: Buffer) => bytes += piece.length).pause()
      const ended = yield* Effect.fork(child.exit)
      while (isAlive(child.pid)) yield* Effect.sleep(5)
      yield* Effect.sleep(50)
      assert.isTrue(Option.isNone(yield* Fiber.poll(ended)))
      output.resume()
      assert.deepStrictEqual(yield* Fiber.join(ended), { status: 3, signal: undefined })
      assert.strictEqual(bytes, 60_000)
    }))

  it.scoped("that nobody reads does not keep it from counting as ended", () =>
    Effect.gen(function*() {
      const { child } = yield* childWithPipe
      assert.deepStrictEqual(yield* child.exit, { status: 3, signal: undefined })
    }))
})
