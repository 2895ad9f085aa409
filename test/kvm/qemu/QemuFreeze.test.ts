import { assert, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/TestClock"
import { makeMemory } from "../../../src/kvm/qemu/QemuFreeze.ts"

it.effect("the memory of a QEMU that does not answer is waited for as long as a freeze, and no longer", () =>
  Effect.gen(function*() {
    const memory = yield* Effect.fork(Effect.flip(makeMemory(Effect.never, Effect.never, Duration.seconds(10))))
    yield* TestClock.adjust("9 seconds")
    assert.isNull(yield* Fiber.poll(memory).pipe(Effect.map((exit) => exit._tag === "None" ? null : exit)))
    yield* TestClock.adjust("1 seconds")
    assert.include((yield* Fiber.join(memory)).message, "no answer within 10 s: is it stopped?")
  }))
