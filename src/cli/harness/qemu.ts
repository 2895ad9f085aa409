import * as Effect from "effect/Effect"
import * as NativeKoffi from "../../core/NativeKoffi.ts"
import { fetchQemu } from "../../harness/engine/FetchQemu.ts"
import { writeText } from "../terminal/Output.ts"
import { holdSignals } from "../terminal/signals.ts"
import * as Stages from "../terminal/Stages.ts"

/** Fetch, and print the path of the program. */
export const fetch = () =>
  Effect.gen(function*() {
    yield* holdSignals
    const { program } = yield* fetchQemu
    yield* writeText(`${program.path}\n`)
  }).pipe(Effect.scoped, Effect.provide(NativeKoffi.layer), Effect.provide(Stages.layer))
