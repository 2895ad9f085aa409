import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { openShares } from "../../../src/kvm/spec/OpenShares.ts"
import { type Share, shareName } from "../../../src/kvm/spec/Share.ts"
import { links } from "../support.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-shares-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)
const open = (...shares: ReadonlyArray<Share>) =>
  openShares({ kernel: "the kernel", initramfs: new Uint8Array(0), shares })

it("a share has its folder's own name in the guest", () => {
  assert.deepStrictEqual(
    ["/a/b", "/a/b/", "/a/b/../c", "/", "/a/it's\n"].map((path) => shareName({ path })),
    ["b", "b", "c", "root", "it's\n"]
  )
})

it.scoped("a share is an open folder, read-only unless it is said to be writable, and closed with its scope", () =>
  Effect.gen(function*() {
    const path = join(yield* temporary, "folder")
    mkdirSync(path)
    const [share] = yield* Effect.scoped(Effect.tap(open({ path }), () => assert.include(links(process.pid), path)))
    assert.deepInclude(share, { path, writable: false })
    assert.notInclude(links(process.pid), path)
  }))

it.scoped("what cannot be shared is told with a way out", () =>
  Effect.gen(function*() {
    const directory = yield* temporary
    const message = (...shares: ReadonlyArray<Share>) =>
      Effect.map(Effect.flip(Effect.scoped(open(...shares))), (error) => error.message)
    const missing = join(directory, "missing")
    assert.strictEqual(
      yield* message({ path: missing }),
      `cannot boot the kernel: its share ${missing} cannot be opened (ENOENT); give the path of a folder that can be read`
    )
    const file = join(directory, "file")
    writeFileSync(file, "")
    const pipe = join(directory, "pipe")
    execFileSync("mkfifo", [pipe])
    for (const path of [file, pipe, "/dev/null"]) {
      for (const writable of [false, true]) {
        assert.include(
          yield* message({ path, writable }),
          `its share ${path} is not a folder; give the path of a folder`
        )
      }
    }
    assert.match(
      yield* message({ path: missing, writable: true }),
      /cannot be opened \(ENOENT\); give the path of a folder that can be read and written, or share it read-only$/
    )
    assert.match(
      yield* message({ path: directory }, { path: `${directory}/` }),
      /would be \/share\/ktstr-shares-\w+ in the guest, as another is; give each folder of a VM a name of its own/
    )
  }))
