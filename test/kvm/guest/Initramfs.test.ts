import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type InitramfsSpec, makeInitramfs } from "../../../src/kvm/guest/Initramfs.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-initramfs-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)
const cpio = (archive: Uint8Array, ...options: ReadonlyArray<string>) =>
  execFileSync("busybox", ["cpio", ...options], { input: archive, encoding: "utf8", stdio: ["pipe", "pipe", "ignore"] })
const names = (archive: Uint8Array) => cpio(archive, "-it").trimEnd().split("\n")

describe("makeInitramfs", () => {
  it.effect("puts an include on the path and each library where the host has it, parents before children", () =>
    Effect.gen(function*() {
      const listed = names(yield* makeInitramfs({ includes: ["/usr/sbin/bpftool"], script: "true" }))
      for (const path of ["init", "bin/busybox", "dev/console", "ktstr/script", "include-files/bpftool"]) {
        assert.include(listed, path)
      }
      assert.include(listed, "lib64/ld-linux-x86-64.so.2")
      assert.include(listed, "lib/x86_64-linux-gnu/libelf.so.1")
      for (const [index, path] of listed.entries()) {
        const parent = path.slice(0, Math.max(0, path.lastIndexOf("/")))
        if (parent !== "") assert.include(listed.slice(0, index), parent)
      }
    }))

  it.scoped("takes directories whole, through links, keeps modes, and gives the same bytes again", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      mkdirSync(join(root, "tools/deep"), { recursive: true })
      writeFileSync(join(root, "tools/deep/data"), "data")
      writeFileSync(join(root, "tools/run"), "#!/bin/sh\n")
      chmodSync(join(root, "tools/run"), 0o750)
      symlinkSync("deep", join(root, "tools/link"))
      const archive = yield* makeInitramfs({ includes: [join(root, "tools")] })
      assert.deepStrictEqual(archive, yield* makeInitramfs({ includes: [join(root, "tools")] }))
      const listed = cpio(archive, "-itv").split("\n").filter((line) => line.includes("include-files/"))
        .map((line) => `${line.split(" ")[0]} ${line.split(" ").at(-1)}`)
      assert.deepStrictEqual(listed, [
        "drwxr-xr-x include-files/tools",
        "drwxr-xr-x include-files/tools/deep",
        "-rw-r--r-- include-files/tools/deep/data",
        "drwxr-xr-x include-files/tools/link",
        "-rw-r--r-- include-files/tools/link/data",
        "-rwxr-x--- include-files/tools/run"
      ])
    }))

  it.scoped("refuses scripts that the guest cannot start, saying what to do", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const script = (name: string, text: string, mode = 0o755) => {
        writeFileSync(join(root, name), text)
        chmodSync(join(root, name), mode)
        return join(root, name)
      }
      const why = (spec: InitramfsSpec) => Effect.map(Effect.flip(makeInitramfs(spec)), (error) => error.message)
      const bash = "its interpreter /bin/bash is not in the guest; write it for #!/bin/sh, or include the interpreter "
        + "and begin it with #!/include-files/bash"
      const inBash = script("in-bash", "#! /bin/bash -eu\necho\n")
      assert.strictEqual(yield* why({ includes: [inBash] }), `cannot include ${inBash}: ${bash}`)
      assert.strictEqual(yield* why({ script: "#!/bin/bash" }), `cannot include the script: ${bash}`)
      for (const line of ["#!/usr/bin/env sh", "#!/bin/env bash", "#!/bin/env -S LANG=C bash -eu", "#!./sh", "#!sh"]) {
        assert.match(yield* why({ script: `${line}\n` }), /^cannot include the script: its interpreter \S+ is not in /)
      }
      for (const line of ["#!/bin/sh\r\n", "#!/bin/sh -e\r\n"]) {
        assert.match(
          yield* why({ includes: [script("dos", line)] }),
          /dos: its first line ends with CR LF, .*: sed -i /
        )
      }
      for (
        const line of [
          "#!/bin/sh",
          "#!\t/bin/busybox sh",
          "#!/bin/env -i awk -f",
          "#!",
          "#!/include-files/sh",
          "# !/no"
        ]
      ) {
        yield* makeInitramfs({ script: `${line}\n`, includes: [script("sh", `${line}\n`)] })
      }
      // it may be read, or be one of many
      mkdirSync(join(root, "tools"))
      writeFileSync(join(root, "tools/tool"), "#!/bin/bash\n", { mode: 0o755 })
      yield* makeInitramfs({ includes: [script("in-bash", "#!/bin/bash\n", 0o644), join(root, "tools")] })
    }))

  it.scoped("refuses what it cannot give the guest, saying what to do", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const why = (...includes: ReadonlyArray<string>) =>
        Effect.map(Effect.flip(makeInitramfs({ includes })), (error) => error.message)
      assert.strictEqual(
        yield* why(join(root, "none")),
        `cannot include ${join(root, "none")}: no such file; check the path`
      )
      execFileSync("mkfifo", [join(root, "pipe")])
      assert.strictEqual(
        yield* why(root),
        `cannot include ${join(root, "pipe")}: it is a pipe; give a regular file`
      )
      assert.match(yield* why("/dev/zero"), /^cannot include \/dev\/zero: it is a device; /)
      mkdirSync(join(root, "a/b"), { recursive: true })
      symlinkSync("../..", join(root, "a/b/up"))
      assert.match(yield* why(join(root, "a/b")), /it links to a directory that holds it; remove the link$/)
      assert.strictEqual(
        yield* why("/usr/sbin/bpftool", "/usr/sbin/bpftool"),
        "cannot include /usr/sbin/bpftool: another include is also called bpftool; rename one of them"
      )
      symlinkSync("self", join(root, "self"))
      assert.match(yield* why(join(root, "self")), /its symbolic links form a loop/)
      execFileSync("truncate", ["-s", "2G", join(root, "huge")])
      assert.match(yield* why(join(root, "huge")), /it is larger than 1 GiB/)
    }))

  it.effect("says which package has the shell where there is none", () =>
    Effect.gen(function*() {
      const path = process.env["PATH"]
      const error = yield* Effect.acquireUseRelease(
        Effect.sync(() => void (process.env["PATH"] = "/nonexistent")),
        () => Effect.flip(makeInitramfs({})),
        () => Effect.sync(() => void (process.env["PATH"] = path))
      )
      assert.strictEqual(
        error.message,
        "busybox: not on PATH; it is the guest's shell; apt-get install busybox-static"
      )
    }))
})
