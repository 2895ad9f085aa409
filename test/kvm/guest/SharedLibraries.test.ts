import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { copyFileSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { readHostFile } from "../../../src/kvm/guest/HostFiles.ts"
import { sharedLibraries } from "../../../src/kvm/guest/SharedLibraries.ts"

const closureOf = (path: string) =>
  readHostFile(path).pipe(
    Effect.flatMap((file) => sharedLibraries([file])),
    Effect.map((libraries) => libraries.map((library) => library.path))
  )

/** What ldd says a program loads, links resolved: `name => path (0x…)` and the bare path of the linker itself. */
const ldd = (path: string): ReadonlyArray<string> =>
  [...execFileSync("ldd", [path], { encoding: "utf8" }).matchAll(/(\/\S+) \(0x/g)].map(([, found]) =>
    realpathSync(found)
  )

const sorted = (paths: Iterable<string>) => [...new Set(paths)].sort()

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-lib-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

describe("sharedLibraries", () => {
  for (const program of ["bpftool", "pahole", "qemu-system-x86_64", "node", "sh"]) {
    it.effect(`finds what ldd finds for ${program}`, () =>
      Effect.gen(function*() {
        const path = execFileSync("sh", ["-c", `command -v ${program}`], { encoding: "utf8" }).trim()
        const found = yield* closureOf(path)
        assert.deepStrictEqual(sorted(found.map((library) => realpathSync(library))), sorted(ldd(path)))
        assert.include(found, "/lib64/ld-linux-x86-64.so.2")
      }))
  }

  it.effect("finds nothing for a static program, a script and a damaged file", () =>
    Effect.gen(function*() {
      const script = { path: "/x", mode: 0o755, bytes: new TextEncoder().encode("#!/bin/sh\n") }
      const sh = yield* readHostFile("/bin/sh")
      const damaged = { ...sh, bytes: sh.bytes.slice(0, 200) }
      assert.deepStrictEqual(yield* sharedLibraries([script, damaged]), [])
      assert.deepStrictEqual(yield* closureOf("/bin/busybox"), [])
    }))

  it.scoped("gives the guest no file that a program names as its interpreter and that is none", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const [secret, program] = [join(root, "secret"), join(root, "program")]
      writeFileSync(secret, "root:secret\n")
      writeFileSync(join(root, "main.c"), "int main(void) { return 0; }\n")
      execFileSync("clang", ["-o", program, "main.c", `-Wl,--dynamic-linker=${secret}`], { cwd: root })
      const { message } = yield* Effect.flip(closureOf(program))
      assert.include(message, `its interpreter ${secret} is not a 64-bit x86 ELF file`)
    }))

  it.scoped("follows $ORIGIN in RUNPATH and in an inherited RPATH, through links, and names who needs what is missing", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const compile = (...words: ReadonlyArray<string>) => execFileSync("clang", words, { cwd: root })
      for (const directory of ["bin", "lib", "elsewhere"]) mkdirSync(join(root, directory))
      symlinkSync("../bin/prog", join(root, "elsewhere/prog"))
      writeFileSync(join(root, "two.c"), "int two(void) { return 2; }\n")
      writeFileSync(join(root, "one.c"), "int two(void); int one(void) { return two() - 1; }\n")
      writeFileSync(join(root, "main.c"), "int one(void); int main(void) { return one() - 1; }\n")
      compile("-shared", "-fPIC", "-o", "lib/libtwo.so", "two.c")
      compile("-shared", "-fPIC", "-o", "lib/libone.so", "one.c", "-Llib", "-ltwo")
      for (const tags of ["--enable-new-dtags", "--disable-new-dtags"]) {
        // with RUNPATH a library finds only what its own RUNPATH says, so there the program names both
        const both = tags === "--enable-new-dtags" ? ["-Wl,--no-as-needed", "-ltwo"] : []
        compile(
          "-o",
          "bin/prog",
          "main.c",
          "-Llib",
          "-lone",
          ...both,
          `-Wl,-rpath,$ORIGIN/../lib,${tags}`,
          "-Wl,-rpath-link,lib"
        )
        for (const at of ["bin/prog", "elsewhere/prog"]) {
          const found = (yield* closureOf(join(root, at))).map((library) => realpathSync(library))
          assert.deepStrictEqual(sorted(found), sorted(ldd(join(root, "bin/prog"))))
        }
      }
      const prog = join(root, "bin/prog")
      assert.include(yield* closureOf(prog), join(root, "lib/libtwo.so"))
      rmSync(join(root, "lib/libtwo.so"))
      // a file of that name that is no library is passed over, as the dynamic linker does
      copyFileSync(join(root, "two.c"), join(root, "lib/libtwo.so"))
      const error = yield* Effect.flip(closureOf(prog))
      assert.strictEqual(
        error.message,
        `cannot include ${prog}: libtwo.so, which ${join(root, "lib/libone.so")} needs, ` +
          "is in none of its library directories; install the package that has it"
      )
    }))
})
