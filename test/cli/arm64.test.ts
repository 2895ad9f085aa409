import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { symlinkSync } from "node:fs"
import { join } from "node:path"
import { cacheRoot } from "../../src/core/CacheDir.ts"
import { findProgram } from "../../src/core/process/Programs.ts"
import { complaints, ktstr, place } from "../support/cli.ts"
import { debianImage } from "../support/kernels.ts"

const ID = "debian:7.3-cloud-arm64"

/** A command about an arm64 kernel of the user's cache, from a place of its own; its exit code and complaints. */
const refused = (args: ReadonlyArray<string>, programs?: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    yield* debianImage("7.3-cloud-arm64") // fetched, where it is not there
    const { cwd, env } = yield* place
    for (const name of programs ?? []) symlinkSync(findProgram(name)!, join(cwd, name))
    const PATH = programs === undefined ? process.env["PATH"] : cwd
    const ran = yield* ktstr([...args, "--kernel", ID], {
      cwd,
      env: { ...env, KTSTR_CACHE_DIR: yield* cacheRoot, PATH }
    })
    assert.strictEqual(ran.stdout, "")
    return [ran.code, ...complaints(ran)]
  }).pipe(Effect.scoped)

const cases: ReadonlyArray<readonly [what: string, args: ReadonlyArray<string>, code: number, message: RegExp]> = [
  [
    "our own engine",
    ["vm", "run", "--exec", "true", "--engine", "kvm"],
    1,
    /^ktstr: cannot boot \S+\/vmlinuz: this engine runs x86-64 kernels, and this is an arm64 kernel; use the engine auto or qemu$/
  ],
  [
    "a program of this host",
    ["vm", "run", "--exec", "true", "--include", "/bin/sed"],
    1,
    /^ktstr: cannot include \/bin\/sed: it is a program for machine 62, and the guest is arm64, machine 183; build it for the guest$/
  ],
  [
    "NUMA nodes",
    ["vm", "run", "--exec", "true", "--topology", "2,2,1,1"],
    1,
    /^ktstr: cannot boot \S+\/vmlinuz: arm64 guests have one NUMA node, one LLC and no threads of cores; use cpus alone$/
  ],
  [
    "a run",
    ["run"],
    2,
    /^ktstr: kernel id "debian:7\.3-cloud-arm64": it is an arm64 kernel, and the agent of runs is an x86-64 program; name an x86-64 one, or use `ktstr vm run`$/
  ]
]

describe("what an arm64 kernel cannot have is told before anything boots", () => {
  for (const [what, args, code, message] of cases) {
    it.effect(what, () =>
      Effect.gen(function*() {
        const [exit, line, ...more] = yield* refused(args)
        assert.match(String(line), message)
        assert.deepStrictEqual([exit, more], [code, []])
      }), 120_000)
  }

  it.effect("where its QEMU is not installed, with the package that has it", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* refused(["vm", "run", "--exec", "true"], ["busybox", "setpriv", "node"]), [
        3,
        "ktstr: qemu-system-aarch64: not on PATH; it runs the guest; apt-get install qemu-system-arm"
      ])
    }), 120_000)
})
