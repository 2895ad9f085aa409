import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { createHash, randomBytes } from "node:crypto"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { makeInitramfs } from "../../../src/kvm/guest/Initramfs.ts"
import { openDisks } from "../../../src/kvm/spec/Disks.ts"
import { VmEngine } from "../../../src/kvm/spec/VmEngine.ts"
import { needsScx, scx } from "../../support/scx.ts"
import { engine, links } from "../support.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-disks-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)
const open = (path: string, readOnly = false) =>
  openDisks({ kernel: "the kernel", initramfs: new Uint8Array(0), disks: [{ path, readOnly }] })

it.scoped("a disk is a file of whole sectors, and closed with its scope", () =>
  Effect.gen(function*() {
    const path = join(yield* temporary, "image")
    writeFileSync(path, new Uint8Array(1024))
    const [disk] = yield* Effect.scoped(Effect.tap(open(path), () => assert.include(links(process.pid), path)))
    assert.strictEqual(disk.bytes, 1024)
    assert.notInclude(links(process.pid), path)
  }))

it.scoped("what is no disk is told with a way out", () =>
  Effect.gen(function*() {
    const directory = yield* temporary
    const path = join(directory, "image")
    const message = (at: string, readOnly: boolean) =>
      Effect.map(Effect.flip(Effect.scoped(open(at, readOnly))), (error) => error.message)
    assert.strictEqual(
      yield* message(path, false),
      `cannot boot the kernel: its disk ${path} cannot be opened (ENOENT); give the path of a disk image that can be ` +
        "read and written, or make the disk read-only"
    )
    mkdirSync(join(directory, "folder"))
    assert.match(
      yield* message(join(directory, "folder"), true),
      /folder is not a regular file; give the path of a disk/
    )
    assert.match(yield* message("/dev/null", true), /is not a regular file/)
    writeFileSync(path, new Uint8Array(513))
    assert.match(yield* message(path, true), /has 513 bytes, not a multiple of 512; truncate -s 1024 makes it longer$/)
  }))

describe("the QEMU engine", () => {
  beforeEach(needsScx)
  it.scopedLive("reads and writes disks, whatever their names", () =>
    Effect.gen(function*() {
      const { key, root } = yield* scx
      const directory = yield* temporary
      const [path, fixed] = [join(directory, "a,disk=1"), join(directory, "fixed \"disk\"")]
      const [content, fixedContent] = [randomBytes(65536), randomBytes(32768)]
      writeFileSync(path, content)
      writeFileSync(fixed, fixedContent)
      const initramfs = yield* makeInitramfs({
        script: `
          sha256sum /dev/vda /dev/vdb
          echo hello | dd of=/dev/vda bs=512 seek=3 conv=sync,fsync,notrunc 2>/dev/null
          echo hello | dd of=/dev/vdb conv=sync,fsync,notrunc 2>/dev/null || echo refused`
      })
      const disks = [{ path }, { path: fixed, readOnly: true }]
      const kernel = join(root, key, "bzImage")
      const vm = yield* (yield* VmEngine).boot({ kernel, initramfs, disks, memoryMib: 192 })
      assert.strictEqual(yield* vm.awaitReady, 0)
      const lines = yield* vm.consoleTail
      const sum = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")
      assert.includeMembers([...lines], [`${sum(content)}  /dev/vda`, `${sum(fixedContent)}  /dev/vdb`, "refused"])
      assert.strictEqual(readFileSync(path).subarray(1536, 1542).toString(), "hello\n")
      assert.deepStrictEqual(readFileSync(fixed), fixedContent)
    }).pipe(Effect.provide(engine)))
})
