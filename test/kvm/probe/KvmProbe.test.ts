import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { loadKvmNative } from "../../../src/kvm/native/abi/Koffi.ts"
import { probeKvm, probeKvmBy } from "../../../src/kvm/probe/KvmProbe.ts"

const held = () => ({
  descriptors: readdirSync("/proc/self/fd").length,
  mappings: readFileSync("/proc/self/maps", "latin1").split("\n").filter((line) => /memfd|kvm/.test(line))
})

describe("probeKvm", () => {
  it.effect("judges /dev/kvm by what a guest does, the same way twice, and keeps nothing open", () =>
    Effect.gen(function*() {
      const first = yield* probeKvm // koffi's own library stays
      const before = held()
      const second = yield* probeKvm
      assert.strictEqual(first.kind, second.kind)
      // it stands in the records of exact runs, which are the same each time
      if (first.kind !== "hardware") assert.strictEqual(first.why, second.why)
      if (!existsSync("/dev/kvm")) assert.strictEqual(first.kind, "absent")
      const expected = process.env["KTSTR_EXPECT_KVM"]
      if (expected !== undefined) assert.strictEqual(first.kind, expected)
      assert.deepStrictEqual(held(), before)
    }))
})

describe("probeKvm without KVM", () => {
  /** The real calls, with another device in /dev/kvm's place. */
  const placed = (path: string) => {
    const native = loadKvmNative()
    return probeKvmBy({ ...native, open: () => native.open(path) })
  }

  it.effect("says what is missing and how to fix it", () =>
    Effect.gen(function*() {
      const verdict = yield* placed("/dev/no-such-device")
      assert.strictEqual(verdict.kind, "absent")
      assert.strictEqual(verdict.why, "/dev/kvm: it cannot be opened: ENOENT")
      assert.match(
        verdict.kind === "absent" ? verdict.hint : "",
        /^switch virtualization on in the firmware and load kvm/
      )
    }))

  it.effect("takes a device that is not KVM for no KVM", () =>
    Effect.gen(function*() {
      const before = held()
      const verdict = yield* placed("/dev/null")
      assert.deepStrictEqual([verdict.kind, verdict.why], [
        "absent",
        "/dev/kvm: KVM_GET_API_VERSION: ENOTTY: this host's KVM does not know the request; use a current kernel"
      ])
      assert.deepStrictEqual(held(), before)
    }))
})
