import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdirSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { kernelAtPath } from "../../../src/core/kernels/KernelPath.ts"
import { Host, image, put, temporary, vmlinux, withVariables } from "../kernelEntries.ts"

const RELEASE = "6.99.0-test"
const bzImage = image(RELEASE)
const itsVmlinux = vmlinux(RELEASE)
const otherVmlinux = vmlinux("6.99.0-other")

const messageOf = (path: string) => Effect.map(Effect.flip(kernelAtPath(path)), (error) => error.message)

layer(Host)("a path", (it) => {
  it.scoped("to a bzImage gives it with the release of its header", () =>
    Effect.gen(function*() {
      const file = put(join(yield* temporary, "my-kernel"), bzImage)
      assert.deepStrictEqual(yield* kernelAtPath(file), { release: RELEASE, image: file, source: file })
    }))

  it.scoped("to a build tree gives its image, vmlinux and config; ~ is HOME", () =>
    Effect.gen(function*() {
      const home = yield* temporary
      const tree = join(home, "linux")
      const expected = {
        release: RELEASE,
        image: put(join(tree, "arch/x86/boot/bzImage"), bzImage),
        vmlinux: put(join(tree, "vmlinux"), itsVmlinux),
        config: put(join(tree, ".config"), "")
      }
      assert.deepStrictEqual(yield* withVariables({ HOME: home })(kernelAtPath("~/linux")), {
        ...expected,
        source: tree
      })
      assert.deepStrictEqual(yield* kernelAtPath(expected.image), { ...expected, source: expected.image })
    }))

  it.scoped("to a vmlinux, or a directory with no other image, gives it as both", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const file = put(join(directory, "vmlinux"), itsVmlinux)
      assert.deepStrictEqual(yield* kernelAtPath(file), { release: RELEASE, image: file, vmlinux: file, source: file })
      assert.deepStrictEqual(yield* kernelAtPath(directory), {
        release: RELEASE,
        image: file,
        vmlinux: file,
        source: directory
      })
    }))

  it.scoped("to a vmlinux finds the banner wherever it is, also across two reads", () =>
    Effect.gen(function*() {
      const file = join(yield* temporary, "vmlinux")
      for (const at of [100, 4 * 2 ** 20 - 7, 11 * 2 ** 20]) {
        const bytes = Buffer.alloc(12 * 2 ** 20)
        bytes.set([0x7f, 0x45, 0x4c, 0x46])
        bytes.write("Linux version 6.98.1 (x@y)", at)
        put(file, bytes)
        assert.strictEqual((yield* kernelAtPath(file)).release, "6.98.1", `at ${at}`)
      }
    }))

  it.scoped("to anything else is one clear line", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const hint = "give a bzImage, a vmlinux, or a directory that holds one"
      assert.strictEqual(
        yield* messageOf("/no/such"),
        `no kernel at /no/such: no such file or directory; ${hint}`
      )
      mkdirSync(join(directory, "bzImage"))
      assert.strictEqual(
        yield* messageOf(directory),
        `no kernel at ${directory}: the directory holds none of arch/x86/boot/bzImage, bzImage, vmlinuz, vmlinux; ${hint}`
      )
      assert.strictEqual(
        yield* messageOf("/etc/passwd"),
        `no kernel at /etc/passwd: the file is neither a bzImage nor an ELF vmlinux nor an arm64 Image; ${hint}`
      )
      assert.strictEqual(
        yield* messageOf("/bin/busybox"),
        `no kernel at /bin/busybox: the ELF file holds no "Linux version" banner, so it is not a kernel; ${hint}`
      )
      assert.strictEqual(
        yield* withVariables({})(messageOf("~/x")),
        `no kernel at ~/x: HOME is not set, so ~ means nothing; ${hint}`
      )
      assert.include(yield* messageOf(put(join(directory, "empty"), "")), "neither a bzImage nor an ELF vmlinux")
      assert.include(yield* messageOf("/dev/null"), "neither a file nor a directory")
    }))
})

layer(Host)("the vmlinux of an image", (it) => {
  for (const place of ["a/b/c/d", "a/b/c", "a/b", "a"]) {
    it.scoped(`is found in ${place} for an image in a/b/c/d`, () =>
      Effect.gen(function*() {
        const root = yield* temporary
        const file = put(join(root, "a/b/c/d/vmlinuz"), bzImage)
        const expected = put(join(root, place, "vmlinux"), itsVmlinux)
        assert.strictEqual((yield* kernelAtPath(file, root)).vmlinux, expected)
      }))
  }

  for (const place of [`boot/vmlinux-${RELEASE}`, `lib/modules/${RELEASE}/vmlinux`]) {
    it.scoped(`is found where distributions put debug files: ${place}`, () =>
      Effect.gen(function*() {
        const root = yield* temporary
        const file = put(join(root, "boot", `vmlinuz-${RELEASE}`), bzImage)
        const expected = put(join(root, "usr/lib/debug", place), itsVmlinux)
        const config = put(join(root, "boot", `config-${RELEASE}`), "")
        assert.deepStrictEqual(yield* kernelAtPath(file, root), {
          release: RELEASE,
          image: file,
          vmlinux: expected,
          config,
          source: file
        })
      }))
  }

  it.scoped("is the nearest one of the same release, whatever else has its name", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const file = put(join(root, "a/b/c/d/bzImage"), bzImage)
      put(join(root, "a/b/c/d/vmlinux"), otherVmlinux)
      put(join(root, "a/b/c/vmlinux"), bzImage)
      mkdirSync(join(root, "a/b/vmlinux"))
      assert.isUndefined((yield* kernelAtPath(file, root)).vmlinux)
      const far = put(join(root, `usr/lib/debug/lib/modules/${RELEASE}/vmlinux`), itsVmlinux)
      assert.strictEqual((yield* kernelAtPath(file, root)).vmlinux, far)
      const near = put(join(root, "a/vmlinux"), itsVmlinux)
      assert.strictEqual((yield* kernelAtPath(file, root)).vmlinux, near)
    }))

  it.scoped("is not looked for more than three directories up", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const file = put(join(root, "a/b/c/d/bzImage"), bzImage)
      put(join(root, "vmlinux"), itsVmlinux)
      assert.isUndefined((yield* kernelAtPath(file, root)).vmlinux)
    }))

  it.scoped("is followed through links, and a dangling one is passed over", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const file = put(join(root, "a/b/bzImage"), bzImage)
      symlinkSync("/no/such", join(root, "a/b/vmlinux"))
      symlinkSync(put(join(root, "elsewhere"), itsVmlinux), join(root, "a/vmlinux"))
      assert.strictEqual((yield* kernelAtPath(file, root)).vmlinux, join(root, "a/vmlinux"))
    }))
})
