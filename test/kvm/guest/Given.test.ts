import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { makeInitramfs, minimumMemoryMib } from "../../../src/kvm/guest/Initramfs.ts"
import { VmEngine } from "../../../src/kvm/spec/VmEngine.ts"
import { kernelImage, matrix } from "../../support/kernels.ts"
import { engine } from "../support.ts"

const directoryIn = (parent: string) =>
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(parent, "ktstr-given-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  )

layer(engine, { excludeTestServices: true, timeout: "60 seconds" })("what a guest is given", (it) => {
  for (const series of ["6.1", "6.12", "7.3"]) {
    it.scoped(`is all there in ${series} with the least memory that is accepted`, () =>
      Effect.gen(function*() {
        const data = join(yield* directoryIn("/var/tmp"), "data")
        const bytes = randomBytes(120_000_000)
        writeFileSync(data, bytes)
        const initramfs = yield* makeInitramfs({ includes: [data], script: "md5sum < /include-files/data" })
        const memoryMib = minimumMemoryMib(initramfs.length)
        const kernel = yield* kernelImage(series)
        const { boot } = yield* VmEngine
        const refused = yield* Effect.flip(boot({ kernel, initramfs, memoryMib: memoryMib - 1 }))
        assert.match(refused.message, new RegExp(`; set memoryMib to ${memoryMib} or more$`))
        const vm = yield* boot({ kernel, initramfs, memoryMib })
        assert.strictEqual(yield* vm.awaitReady, 0)
        const sum = createHash("md5").update(bytes).digest("hex")
        assert.include(yield* vm.consoleTail, `${sum}  -`)
      }), 120_000)
  }

  it.scoped("is checked before the script runs: an archive cut short is a typed failure", () =>
    Effect.gen(function*() {
      const data = join(yield* directoryIn("/var/tmp"), "data")
      writeFileSync(data, randomBytes(100_000_000))
      const kernel = yield* kernelImage("6.12")
      const initramfs = yield* makeInitramfs({ includes: [data], script: "echo the script ran" })
      const memoryMib = minimumMemoryMib(initramfs.length)
      // what the kernel would choose without us: a file system of half of the memory
      const vm = yield* (yield* VmEngine).boot({ kernel, initramfs, memoryMib, cmdline: "rootfstype=tmpfs" })
      const error = yield* Effect.flip(vm.awaitReady)
      assert.strictEqual(error._tag, "InitramfsIncomplete")
      assert.match(
        error.message,
        /^the guest got \d+ files with \d+ bytes of its initramfs, which has \d+ with \d+; raise/
      )
      assert.notInclude(yield* vm.consoleTail, "the script ran")
    }), 120_000)

  // what the guest's mounts hide is its init's doing, not its kernel's: one shows it, KTSTR_MATRIX=1 has all three
  for (const series of matrix.length === 0 ? ["6.12"] : ["6.1", "6.12", "7.3"]) {
    it.scoped(
      `works in ${series} where it was on the host, under a mount point of the guest too`,
      () =>
        Effect.gen(function*() {
          const includes: Array<string> = []
          for (const [index, parent] of ["/var/tmp", "/tmp", "/run", "/dev/shm"].entries()) {
            const directory = yield* directoryIn(parent)
            writeFileSync(join(directory, "f.c"), `int f(void) { return ${40 + index}; }\n`)
            writeFileSync(
              join(directory, "m.c"),
              "int f(void); int printf(const char *, ...);\nint main(void) { printf(\"f=%d\\n\", f()); return 0; }\n"
            )
            execFileSync("gcc", ["-shared", "-fPIC", "-o", `libf${index}.so`, "f.c"], { cwd: directory })
            execFileSync("gcc", ["-o", `m${index}`, "m.c", `-L.`, `-lf${index}`, `-Wl,-rpath,${directory}`], {
              cwd: directory
            })
            includes.push(join(directory, `m${index}`))
          }
          const kernel = yield* kernelImage(series)
          const initramfs = yield* makeInitramfs({ includes, script: "for i in 0 1 2 3; do m$i; done" })
          const vm = yield* (yield* VmEngine).boot({ kernel, initramfs, memoryMib: 192 })
          assert.strictEqual(yield* vm.awaitReady, 0)
          const said = (yield* vm.consoleTail).filter((line) => line.startsWith("f="))
          assert.deepStrictEqual(said, ["f=40", "f=41", "f=42", "f=43"])
        }),
      60_000
    )
  }
})
