import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { minimumMemoryMib } from "../../../src/kvm/guest/Initramfs.ts"
import * as Kvm from "../../../src/kvm/native/Kvm.ts"
import { VmEngine, type VmSpec } from "../../../src/kvm/spec/VmEngine.ts"
import { kernelImage } from "../../support/kernels.ts"

const INITRAMFS = new Uint8Array(2 ** 20)
const absent = !existsSync("/dev/kvm")

const refusal = (spec: Partial<VmSpec>) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage("6.12")
    const engine = yield* VmEngine
    return yield* Effect.flip(Effect.scoped(engine.boot({ kernel, initramfs: INITRAMFS, ...spec })))
  }).pipe(Effect.provide(Kvm.layer))

it.live.skipIf(absent)("what cannot boot is refused in a line that says what to do", () =>
  Effect.gen(function*() {
    const directory = mkdtempSync(join(tmpdir(), "ktstr-kvm-"))
    const text = join(directory, "text")
    writeFileSync(text, "no kernel")
    const said = yield* Effect.forEach([
      { kernel: join(directory, "missing") },
      { kernel: text },
      { memoryMib: 16 },
      { memoryMib: 70 },
      { cpus: 0 },
      { cpus: 1.5 },
      { cpus: 10_000 },
      { cmdline: "a\nb" },
      { cmdline: "x".repeat(5000) },
      { consoleFile: directory }
    ], (spec) => Effect.map(refusal(spec), ({ _tag, message }) => `${_tag}: ${message.replace(/^.*?: /, "")}`))
    rmSync(directory, { recursive: true })
    const least = minimumMemoryMib(INITRAMFS.length)
    const expected = [
      /^VmBootError: ENOENT.*; give the path of a kernel image \(bzImage or vmlinux\)$/,
      /^VmBootError: .*text: kernel image at byte 510: expected a bzImage .*; give the path of a kernel image/,
      `VmBootError: 16 MiB of memory cannot hold a kernel and its initramfs; set memoryMib to ${least} or more`,
      /^VmBootError: 70 MiB of memory cannot hold it and its initramfs; set memoryMib to \d+ or more$/,
      /^VmBootError: a VM cannot have 0 CPUs and 512 MiB of memory/,
      /^VmBootError: a VM cannot have 1.5 CPUs and 512 MiB of memory/,
      /^VmBootError: a VM cannot have 10000 CPUs and 512 MiB of memory; give whole numbers, 1 to 254 CPUs$/,
      /^VmBootError: its command line has a line break or a NUL; take it out of cmdline$/,
      /^VmBootError: command line too long: \d+ bytes, limit 2047; shorten cmdline$/,
      /^VmBootError: its console cannot be kept in .*: EISDIR/
    ]
    for (const [index, line] of said.entries()) {
      const wanted = expected[index]
      if (typeof wanted === "string") assert.strictEqual(line, wanted)
      else assert.match(line, wanted)
    }
  }))

it.live("shares are QEMU's alone", () =>
  Effect.gen(function*() {
    const { message } = yield* refusal({ shares: [{ path: "." }] })
    assert.match(
      message,
      /: this engine cannot share folders with its guest; use the engine auto or qemu, or includes$/
    )
  }))

it.live.skipIf(absent)(
  "a VM whose scope closes is killed, and says so as a process does",
  () =>
    Effect.gen(function*() {
      const kernel = yield* kernelImage("6.12")
      const engine = yield* VmEngine
      const vm = yield* Effect.scoped(engine.boot({ kernel, initramfs: INITRAMFS }))
      assert.deepStrictEqual(yield* vm.awaitExit, { status: undefined, signal: "SIGKILL" })
    }).pipe(Effect.provide(Kvm.layer))
)
