import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { findExactQemu } from "../../../src/harness/engine/FindQemu.ts"
import { makeInitramfs } from "../../../src/kvm/guest/Initramfs.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"
import { HostLive } from "../../support/guest.ts"
import { kernelImage } from "../../support/kernels.ts"
import { bundle, runInside, shared } from "./support/harness.ts"

const SECONDS = 400

/** Writes to a variable of its kernel what is typed. */
const script = `
  (read values < /dev/ttyS0
   for n in $values; do echo $n > /proc/sys/kernel/panic; done; echo "written $(cat /proc/sys/kernel/panic)") &
  exit 0`

/** Before 9.1 a guest of QEMU's emulated SVM has no debug registers: "target/i386: disable/enable breakpoints on vmentry/vmexit". */
describe("watches of a guest's memory by the native engine", () => {
  beforeEach(needsExactQemu)
  it.scopedLive(
    "stop it right after each write, on real KVM",
    () =>
      Effect.gen(function*() {
        const { program } = yield* Effect.provide(findExactQemu, HostLive)
        const directory = yield* shared
        const initramfs = join(directory, "guest")
        writeFileSync(initramfs, yield* makeInitramfs({ script }))
        const args = [yield* kernelImage("6.12"), initramfs]
        const job = yield* bundle("watch", directory)
        const { lines, status } = yield* runInside(job, args, SECONDS, { qemu: program })
        assert.strictEqual(status, 0, lines.slice(-60).join("\n"))
        assert.lengthOf(lines.filter((line) => /^\[[\d.]+ s\] ok: /.test(line)), 5)
      }),
    (SECONDS + 30) * 1000
  )
})
