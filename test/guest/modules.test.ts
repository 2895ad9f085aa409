import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { run } from "../core/samples.ts"
import { KTSTR, ktstr } from "../support/cli.ts"

const KERNEL = "debian:6.12-cloud"

/** A directory of the scope's. */
const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-modules-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

it.scoped(
  "a stock kernel, whose drivers are modules, has its disk, its share and the modules that were asked for",
  () =>
    Effect.gen(function*() {
      const folder = yield* temporary
      const disk = join(folder, "disk")
      writeFileSync(disk, "stock")
      truncateSync(disk, 2 ** 20)
      const machine = ["--engine", "qemu", "--kernel", KERNEL, "--disk", disk, "--share", `${folder},rw`]
      const ran = yield* ktstr([
        "vm",
        "run",
        ...machine,
        "--module",
        "nf_tables",
        "--module",
        "virtio-pci",
        "--exec",
        "head -c 5 /dev/vda; echo; (cd /share/*; echo guest > file); cut -d' ' -f1 /proc/modules"
      ])
      const [read, ...modules] = ran.stdout.trim().split("\n")
      assert.deepStrictEqual([ran.code, read], [0, "stock"], ran.stderr)
      assert.strictEqual(readFileSync(join(folder, "file"), "utf8"), "guest\n")
      for (const name of ["virtio_blk", "nf_tables"]) assert.include(modules, name)
      assert.match(ran.stderr, /module virtio_pci is built into 6\.12\./)
    }),
  240_000
)

it.scoped(
  "a module that the kernel refuses ends the run before the script",
  () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const image = run("node", [KTSTR, "kernel", "path", KERNEL]).toString().trim()
      const entry = join(image, "..")
      const key = join(root, "debian-copy")
      cpSync(entry, key, { recursive: true })
      const nft = join(key, "modules/kernel/net/netfilter/nf_tables.ko")
      const bytes = Buffer.from(run("sh", ["-c", `xz -dc ${nft}.xz 2>/dev/null || cat ${nft}`]))
      // of another kernel, by what its vermagic says
      const at = bytes.indexOf("vermagic=")
      assert.isAbove(at, 0)
      bytes.write("vermagic=9", at)
      rmSync(`${nft}.xz`, { force: true })
      writeFileSync(nft, bytes)
      const ran = yield* ktstr(
        [
          "vm",
          "run",
          "--engine",
          "qemu",
          "--kernel",
          "debian-copy",
          "--module",
          "nf_tables",
          "--exec",
          "echo script ran"
        ],
        { env: { KTSTR_CACHE_DIR: root } }
      )
      assert.strictEqual(ran.code, 1, ran.stderr)
      assert.match(ran.stdout, /ktstr: the kernel did not load its module nf_tables/)
      assert.notInclude(ran.stdout, "script ran")
    }),
  240_000
)
