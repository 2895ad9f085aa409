import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { vmlinuxOf } from "../../../src/core/image/KernelImage.ts"
import { readLinuxImage } from "../../../src/kvm/spec/LinuxImage.ts"
import { kernelImage } from "../../support/kernels.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-image-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

it.scopedLive("a vmlinux's pieces and entry are those that readelf shows", () =>
  Effect.gen(function*() {
    const directory = yield* temporary
    const path = yield* kernelImage("6.12")
    const vmlinux = join(directory, "vmlinux")
    writeFileSync(vmlinux, yield* vmlinuxOf(readFileSync(path), path))
    const shown = execFileSync("readelf", ["-hlW", vmlinux], { encoding: "utf8" })
    const image = yield* readLinuxImage(vmlinux)
    assert.strictEqual(image.kind, "vmlinux")
    assert.strictEqual(image.entry, Number(/Entry point address:\s+(0x[0-9a-f]+)/.exec(shown)?.[1]))
    const loads = [...shown.matchAll(/^\s+LOAD\s+(0x\S+) 0x\S+ (0x\S+) (0x\S+) (0x\S+)/gm)].map((each) => {
      const [fileOffset, address, fileBytes, memBytes] = each.slice(1).map(Number)
      return { fileOffset, fileBytes, address, memBytes }
    })
    assert.isAbove(loads.length, 1)
    assert.deepStrictEqual(image.pieces, loads)
    assert.isTrue(image.pvh)
    assert.isFalse((yield* readLinuxImage(path)).pvh)
    const bytes = readFileSync(vmlinux)
    const entry = bytes.indexOf(Buffer.from("\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0", "latin1"))
    assert.isAbove(entry, 0)
    bytes[entry + 8] = 0x11
    writeFileSync(vmlinux, bytes)
    assert.isFalse((yield* readLinuxImage(vmlinux)).pvh)
  }))

it.scopedLive("every short or damaged head of a kernel is refused with its position", () =>
  Effect.gen(function*() {
    const directory = yield* temporary
    const path = yield* kernelImage("6.12")
    const whole = readFileSync(path)
    const image = yield* readLinuxImage(path)
    assert.strictEqual(image.kind, "bzImage")
    assert.strictEqual(image.pieces[0].fileOffset + image.pieces[0].fileBytes, whole.length)
    const damaged = join(directory, "damaged")
    const refused = (bytes: Uint8Array) => {
      writeFileSync(damaged, bytes)
      const result = readLinuxImage(damaged)
      assert.isTrue(Either.isLeft(result) && result.left._tag === "FormatError" && result.left.subject === damaged)
    }
    for (const length of [0, 1, 63, 64, 0x1ff, 0x263, 0x3ff, 0x400, image.pieces[0].fileOffset]) {
      refused(whole.subarray(0, length))
    }
    // the boot flag, HdrS, the version, the 64-bit entry's flag, the load address
    for (const at of [0x1fe, 0x202, 0x207, 0x236, 0x258]) {
      const bytes = Buffer.from(whole.subarray(0, 0x8000))
      bytes[at] ^= 1
      if (at === 0x207) bytes[at] = 1
      refused(bytes)
    }
  }))
