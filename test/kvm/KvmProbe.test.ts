import { assert, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { Native } from "../../src/core/Native.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import { probeKvm } from "../../src/kvm/KvmProbe.ts"

const held = () => ({
  descriptors: readdirSync("/proc/self/fd").length,
  mappings: readFileSync("/proc/self/maps", "latin1").split("\n").filter((line) => /ktstr-probe|kvm/.test(line))
})

layer(NativeKoffi.layer)("probeKvm", (it) => {
  it.effect("judges /dev/kvm by what a guest does, the same way twice, and keeps nothing open", () =>
    Effect.gen(function*() {
      const before = held()
      const first = yield* probeKvm
      const second = yield* probeKvm
      assert.strictEqual(first.kind, second.kind)
      if (!existsSync("/dev/kvm")) assert.strictEqual(first.kind, "absent")
      if (first.kind === "hardware") assert.isAbove(first.mips, 100)
      if (first.kind === "emulated") assert.isBelow(first.mips, 100)
      const expected = process.env["KTSTR_EXPECT_KVM"]
      if (expected !== undefined) assert.strictEqual(first.kind, expected)
      assert.deepStrictEqual(held(), before)
    }))
})

describe("probeKvm without KVM", () => {
  /** The real calls, with another device in /dev/kvm's place. */
  const placed = (path: string) =>
    Layer.effect(
      Native,
      Effect.map(Native, (native) => ({ ...native, open: (_: string, flags: number) => native.open(path, flags) }))
    ).pipe(Layer.provide(NativeKoffi.layer))

  it.effect("says what is missing and how to mend it", () =>
    Effect.gen(function*() {
      const verdict = yield* Effect.provide(probeKvm, placed("/dev/no-such-device"))
      assert.deepStrictEqual(verdict, {
        kind: "absent",
        why: "/dev/kvm cannot be opened: ENOENT",
        mend: "switch virtualisation on in the firmware and load kvm-intel or kvm-amd"
      })
    }))

  it.effect("takes a device that is not KVM for no KVM", () =>
    Effect.gen(function*() {
      const verdict = yield* Effect.provide(probeKvm, placed("/dev/null"))
      assert.strictEqual(verdict.kind, "absent")
      assert.match(verdict.why, /^\/dev\/kvm: ioctl fd \d+, request 0xae00: ENOTTY/)
    }))
})
