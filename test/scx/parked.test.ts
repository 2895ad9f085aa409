import { beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { needsScx, needsStockScx, scx, stockScx } from "../support/scx.ts"
import { compareParked } from "./compareParked.ts"

describe("tasks that a scheduler parks are read where it put them, with its programs, and how it ended", () => {
  for (
    const [title, needs, programs] of [
      ["on 6.12, whose scheduler is in variables", needsScx, scx],
      ["on 7.3-cloud, whose scheduler is allocated", needsStockScx, stockScx]
    ] as const
  ) {
    describe("park.bpf.c", () => {
      beforeEach(needs)
      beforeEach(needsStockScx)
      it.live(
        title,
        () =>
          Effect.gen(function*() {
            const { key } = yield* programs
            yield* compareParked(key, (yield* stockScx).bpftool)
          }),
        300_000
      )
    })
  }
})
