// A program that leaves in the middle of everything.
import * as Effect from "effect/Effect"
import { writeSync } from "node:fs"
import { assemble, bareMachine } from "../support/bareMetal.ts"

await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
  const { machine } = yield* bareMachine(assemble("1: jmp 1b"))
  yield* Effect.scoped(machine.freeze)
  writeSync(1, "spins\n")
  process.exit(7)
})))
