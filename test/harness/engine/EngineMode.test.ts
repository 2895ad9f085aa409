import { assert, describe, it } from "@effect/vitest"
import { modesOf } from "../../../src/harness/engine/EngineMode.ts"
import { isExact, type QemuFound, versionOf } from "../../../src/harness/engine/FindQemu.ts"

const noKvm = { kind: "absent", why: "/dev/kvm: ENOENT", hint: "" } as const
const qemu = (version: string, from: QemuFound["from"]): QemuFound => ({
  program: { path: "/usr/bin/qemu-system-x86_64", firmware: [] },
  version,
  from
})
const works = (modes: ReturnType<typeof modesOf>) => modes.filter((one) => one.works).map(({ mode }) => mode)

describe("the modes of a host", () => {
  it("reads a QEMU's version", () => {
    assert.strictEqual(versionOf("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)\nCopyright"), "7.2.22")
    assert.strictEqual(versionOf("bash: no such thing"), undefined)
  })

  it("takes QEMU for exact from 8.1 on", () => {
    assert.deepStrictEqual(["7.2.22", "8.0.5", "8.1.0", "9.0.0", "10.0.2"].filter(isExact), [
      "8.1.0",
      "9.0.0",
      "10.0.2"
    ])
  })

  it("has nothing without QEMU and KVM, and says what to install", () => {
    const modes = modesOf(noKvm, [])
    assert.deepStrictEqual(works(modes), [])
    assert.isTrue(modes.every(({ fix }) => fix !== null && fix !== ""))
  })

  it("has no exact mode with an old QEMU, and names the command that gets a newer one", () => {
    const modes = modesOf(noKvm, [qemu("7.2.22", "PATH")])
    assert.deepStrictEqual(works(modes), ["exact-coarse", "emulated"])
    const exact = modes.find(({ mode }) => mode === "exact")
    assert.deepStrictEqual(exact, {
      mode: "exact",
      works: false,
      why: "QEMU 7.2.22 of PATH is older than 8.1",
      fix: "run `ktstr qemu fetch`"
    })
  })

  it("has exact mode by a newer QEMU in the cache", () => {
    const modes = modesOf(noKvm, [qemu("7.2.22", "PATH"), qemu("10.0.2", "cache")])
    assert.deepStrictEqual(works(modes), ["exact", "exact-coarse", "emulated"])
    assert.strictEqual(modes.find(({ mode }) => mode === "exact")?.why, "QEMU 10.0.2 of the cache")
  })

  it("has KVM where hardware runs guests", () => {
    assert.deepStrictEqual(works(modesOf({ kind: "hardware", why: "a probe guest ran", mips: 2000 }, [])), ["kvm"])
  })
})
