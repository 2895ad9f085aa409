import { assert, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { writePieces } from "../../../src/cli/terminal/Output.ts"
import { type Printable, printable } from "../../../src/cli/terminal/Printable.ts"

it.effect("what fails where pieces are made is not blamed on stdout", () =>
  Effect.gen(function*() {
    const broken = new RangeError("Maximum call stack size exceeded")
    const cause = yield* Effect.flip(Effect.sandbox(writePieces(
      (function*(): Generator<Printable> {
        yield printable("")
        throw broken
      })()
    )))
    assert.deepStrictEqual(Cause.dieOption(cause), Option.some(broken))
    assert.isTrue(Option.isNone(Cause.failureOption(cause)))
  }))
