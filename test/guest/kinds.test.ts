import { beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { needsScx, needsStockScx, scx, stockScx } from "../support/scx.ts"
import { compareKinds } from "./compareKinds.ts"

describe("maps of every type hold in frozen memory what was put in", () => {
  for (const kernel of ["debian:6.12-cloud", "debian:6.1-cloud"]) {
    it.effect(kernel, () => compareKinds({ kernel, ops: "congestion" }), 300_000)
  }
  describe("by the bpftool of 7.3's source", () => {
    beforeEach(needsStockScx)
    it.effect(
      "debian:7.3-cloud",
      () =>
        Effect.flatMap(
          stockScx,
          ({ bpftool }) => compareKinds({ kernel: "debian:7.3-cloud", ops: "congestion", bpftool })
        ),
      300_000
    )
  })
  describe("on a kernel with sched_ext", () => {
    beforeEach(needsScx)
    it.effect("6.12", () => Effect.flatMap(scx, ({ key }) => compareKinds({ kernel: key, ops: "scheduler" })), 300_000)
  })
})
