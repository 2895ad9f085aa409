import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { copyFileSync } from "node:fs"
import { join } from "node:path"
import { readScheduler } from "../../../src/harness/run/SchedulerProgram.ts"
import { guestLimits } from "../../../src/harness/scenario/GuestLimits.ts"
import { HostLive, scratch } from "../../support/guest.ts"

it.effect("a scheduler whose arguments the guest would not get whole, or whose name is taken, is refused", () =>
  Effect.gen(function*() {
    const scheduler = { name: "s", binary: "/bin/true" }
    const limits = guestLimits({ shift: 2 })
    assert.strictEqual((yield* readScheduler({ ...scheduler, args: ["--slice", "5"] }, limits)).ops, "true")
    for (const change of [{ args: ["a", "b\0c"] }, { ops: "b\0c" }]) {
      const { message } = yield* Effect.flip(readScheduler({ ...scheduler, ...change }, limits))
      assert.match(message, /^the scheduler \/bin\/true: an argument of it, or its name in sysfs, has a NUL; /)
    }
    const { message } = yield* Effect.flip(readScheduler({ ...scheduler, attachWithin: "2 hours" }, limits))
    assert.match(message, /attachWithin is "2 hours"; give a time of at most an hour/)
    const payload = join(yield* scratch, "payload")
    copyFileSync("/bin/true", payload)
    const named = yield* Effect.flip(readScheduler({ ...scheduler, binary: payload }, limits))
    assert.match(named.message, /payload: a guest's payloads lie in a directory of that name; rename the program$/)
  }).pipe(Effect.scoped, Effect.provide(HostLive)))

it.effect("a scheduler attaches within what it says of the guest's time, or else within what its clock gives the work", () =>
  Effect.gen(function*() {
    const limitOf = (attachWithin?: string) => {
      const scheduler = { name: "s", binary: "/bin/true", ...(attachWithin === undefined ? {} : { attachWithin }) }
      return Effect.map(readScheduler(scheduler, guestLimits({ shift: 2 })), ({ attachLimit }) => attachLimit)
    }
    assert.strictEqual(yield* limitOf(), 20e9)
    assert.strictEqual(yield* limitOf("3 seconds"), 3e9)
  }))
