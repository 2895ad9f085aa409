import { beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { findExactQemu } from "../../src/harness/engine/FindQemu.ts"
import * as Qemu from "../../src/kvm/qemu/Qemu.ts"
import { needsExactQemu } from "../support/exactQemu.ts"
import { HostLive } from "../support/guest.ts"
import { compareWrites } from "./compareWrites.ts"

/** From 8.1 on QEMU says that a guest stands only to a debugger that let it run. */
describe("moments of a guest that changes a variable, in a QEMU of 8.1 or newer", () => {
  beforeEach(needsExactQemu)
  for (const emulation of ["turns", "threads"] as const) {
    it.live(`come once for each change where its CPUs have ${emulation}`, () =>
      Effect.gen(function*() {
        const { program } = yield* findExactQemu
        yield* Effect.provide(compareWrites, Qemu.layerWith({ program, emulation, accelerate: "emulation" }))
      }).pipe(Effect.provide(HostLive)), 300_000)
  }
})
