import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { ConsoleSize, Vm } from "../../kvm/spec/VmEngine.ts"

const CTRL_A = 0x01
const X = 0x78

/** The part of the user's typing that is for the guest; undefined if the user asked to leave. */
export type Escapes = (typed: Uint8Array) => Uint8Array | undefined

/** Ctrl-A x leaves, Ctrl-A Ctrl-A is one Ctrl-A, and any other key after Ctrl-A goes to the guest with it. */
export const makeEscapes = (): Escapes => {
  let held = false
  return (typed) => {
    const through: Array<number> = []
    for (const byte of typed) {
      if (!held && byte === CTRL_A) {
        held = true
        continue
      }
      if (held && byte === X) return undefined
      if (held && byte !== CTRL_A) through.push(CTRL_A)
      through.push(byte)
      held = false
    }
    return Uint8Array.from(through)
  }
}

/** The size of the terminal that stdout is, if it knows one. */
export const terminalSize = (): ConsoleSize | undefined => {
  const { columns, rows } = process.stdout
  return columns > 0 && rows > 0 ? { columns, rows } : undefined
}

/**
 * Make the terminal raw and the guest's own: each key goes to it, and each change of size. Ends when the user leaves or
 * the terminal hangs up; whatever ends it, the terminal is as before.
 * @param known the size that the guest knows already
 */
export const rawTerminal = (vm: Vm, known: ConsoleSize | undefined): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { stdin, stdout } = process
    const left = yield* Deferred.make<void>()
    const keys = yield* Queue.unbounded<Uint8Array>()
    const sizes = yield* Queue.sliding<ConsoleSize>(1)
    const leave = () => Deferred.unsafeDone(left, Effect.void)
    const escapes = makeEscapes()
    const onData = (typed: Uint8Array) => {
      const bytes = escapes(typed)
      if (bytes === undefined) leave()
      else Queue.unsafeOffer(keys, bytes)
    }
    const onResize = () => {
      const size = terminalSize()
      if (size !== undefined) Queue.unsafeOffer(sizes, size)
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        stdin.on("error", leave).on("end", leave).on("data", onData)
        stdout.on("resize", onResize)
        stdin.setRawMode(true)
        stdin.resume()
      }),
      () =>
        Effect.sync(() => {
          stdout.off("resize", onResize)
          stdin.off("data", onData).off("end", leave)
          stdin.setRawMode(false)
          stdin.pause().unref()
        })
    )
    const now = terminalSize()
    if (now?.rows !== known?.rows || now?.columns !== known?.columns) onResize()
    // a VM that has ended is seen by who waits for that
    yield* Effect.forkScoped(Effect.ignore(Effect.forever(Effect.flatMap(Queue.take(keys), vm.type))))
    yield* Effect.forkScoped(Effect.ignore(Effect.forever(Effect.flatMap(Queue.take(sizes), vm.resize))))
    yield* Deferred.await(left)
  })
