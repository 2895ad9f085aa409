import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { boot, freezeAndAttach } from "../../src/Ktstr.ts"
import { held } from "../kvm/support.ts"
import { HostLive, scratch } from "../support/guest.ts"

const KERNEL = "debian:6.12-cloud"
const NAME = "it's a,\nfolder $(reboot -f)"

const commOf = (pid: number): string => readFileSync(`/proc/${pid}/comm`, "utf8")

/** A directory that is also where temporary files go. */
const scratchForAll = Effect.acquireRelease(
  Effect.map(scratch, (directory) => {
    const before = process.env["TMPDIR"]
    process.env["TMPDIR"] = directory
    return { directory, before }
  }),
  ({ before }) =>
    Effect.sync(() => before === undefined ? delete process.env["TMPDIR"] : process.env["TMPDIR"] = before)
)

it.scopedLive("a guest reads the host's folders, and writes to those that it may", () =>
  Effect.gen(function*() {
    const { directory } = yield* scratchForAll
    const [shown, given] = [join(directory, "shown"), join(directory, NAME)]
    for (const path of [shown, given]) mkdirSync(path)
    writeFileSync(join(shown, "of the host"), "before\n")
    yield* Effect.scoped(Effect.gen(function*() {
      const vm = yield* boot({
        kernel: KERNEL,
        memoryMib: 256,
        shares: [{ path: shown }, { path: given, writable: true }],
        script: `
          cat "/share/shown/of the host" &&
          ! touch /share/shown/new &&
          mount -o remount,rw /share/shown &&
          ! touch /share/shown/new &&
          ! rm "/share/shown/of the host" &&
          ls / > "$(find /share -mindepth 1 -maxdepth 1 -name 'it*')/of the guest"`
      })
      assert.include(yield* vm.consoleTail, "before")
      // QEMU and two servers
      assert.strictEqual((yield* held).children.length, 3)
      assert.deepStrictEqual(readdirSync(directory).toSorted(), [NAME, "shown"].toSorted())
      assert.include(readFileSync(join(given, "of the guest"), "utf8").split("\n"), "share")
      yield* Effect.scoped(freezeAndAttach(vm, KERNEL))
      writeFileSync(join(shown, "later"), "after\n")
      assert.deepInclude(yield* vm.exec("cat /share/shown/later"), { status: 0, output: "after\n" })

      const server = (yield* held).children.find((pid) => commOf(pid).startsWith("virtiofsd"))
      process.kill(server ?? assert.fail("no server"), "SIGKILL")
      const error = yield* Effect.flip(vm.exec("exec sleep 1000"))
      assert.match(
        error.message,
        /^the guest has ended \(SIGKILL, the server of the shared folder .*(shown|folder \$\(reboot -f\)) has ended \(SIGKILL\)\); /s
      )
    }))
    assert.deepStrictEqual((yield* held).children, [])
    assert.deepStrictEqual(readdirSync(shown), ["later", "of the host"])
    assert.deepStrictEqual(readdirSync(given), ["of the guest"])
    assert.strictEqual(readFileSync(join(shown, "of the host"), "utf8"), "before\n")
  }).pipe(Effect.provide(HostLive)), 120_000)
