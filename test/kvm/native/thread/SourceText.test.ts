import { assert, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Script } from "node:vm"
import { kvmNativeOver } from "../../../../src/kvm/native/abi/KvmNative.ts"
import { FutexLock } from "../../../../src/kvm/native/thread/FutexLock.ts"
import { PortRing } from "../../../../src/kvm/native/thread/PortRing.ts"
import { Uart } from "../../../../src/kvm/native/thread/Uart.ts"
import { VcpuThread } from "../../../../src/kvm/native/thread/VcpuThread.ts"
import { VirtioMmio } from "../../../../src/kvm/native/thread/VirtioMmio.ts"

const root = new URL("../../../../", import.meta.url).pathname

/** What the linter says of a file of that text in the folder of the code that threads get as source text. */
const lint = (source: string): { readonly status: number | null; readonly output: string } => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-lint-"))
  try {
    const folder = join(directory, "src/kvm/native/thread")
    mkdirSync(folder, { recursive: true })
    copyFileSync(join(root, ".oxlintrc.json"), join(directory, ".oxlintrc.json"))
    symlinkSync(join(root, "node_modules"), join(directory, "node_modules"))
    writeFileSync(join(folder, "New.ts"), source)
    const { status, stderr, stdout } = spawnSync(join(root, "node_modules/.bin/oxlint"), ["src"], {
      cwd: directory,
      encoding: "utf8"
    })
    return { status, output: stdout + stderr }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

it("the linter refuses an import of a value in what is sent to vCPU threads as source text", () => {
  const types = `import type { Uart } from "./Uart.ts"\nexport const first = (uarts: ReadonlyArray<Uart>) => uarts[0]\n`
  assert.deepStrictEqual(lint(types).status, 0)
  for (
    const value of [
      `import { Uart } from "./Uart.ts"\nexport const base = Uart.HEADER\n`,
      `import { readFileSync } from "node:fs"\nexport const read = () => readFileSync("/")\n`,
      `export { Uart } from "./Uart.ts"\n`
    ]
  ) {
    const { output, status } = lint(value)
    assert.notStrictEqual(status, 0)
    assert.include(output, "only import type")
  }
})

it("each part of a vCPU thread's program is made of its own source text alone", () => {
  for (const part of [FutexLock, PortRing, Uart, VirtioMmio, VcpuThread, kvmNativeOver]) {
    // a static member that refers to anything of its module, or of the transpiler's, throws here
    const made = new Script(`(${part})`).runInNewContext({})
    assert.strictEqual(typeof made, "function", part.name)
  }
})

it("a lock made from its source text excludes others, and is free again when its user throws", () => {
  const Lock: typeof FutexLock = new Script(`(${FutexLock})`).runInThisContext()
  const words = new Int32Array(new SharedArrayBuffer(8))
  const lock = new Lock(words, 1)
  assert.strictEqual(lock.hold(() => words[1]), 1)
  assert.strictEqual(words[1], 0)
  assert.throws(() =>
    lock.hold(() => {
      throw new Error("its user's")
    }), "its user's")
  assert.deepStrictEqual([...words], [0, 0])
})
