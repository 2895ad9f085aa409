// Prints how long vCPUs take to stand when a guest is frozen, on this machine's /dev/kvm; and how long the native engine
// takes from its process's start to the first word of the guest's init, beside QEMU on the same KVM with the same kernel
// and initramfs, and the limit. The latter inside an emulated machine that has real KVM, which takes some minutes.
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { build } from "esbuild"
import { execFileSync } from "node:child_process"
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { pathToFileURL } from "node:url"
import { KernelResolver } from "../dist/core/kernels/KernelResolver.js"
import * as NativeKoffi from "../dist/core/NativeKoffi.js"
import { cpioArchive } from "../dist/kvm/guest/Cpio.js"

const FREEZES = 1000
const PAIRS = 5
const LIMIT = 0.8
const SECONDS = 1500

const here = (name) => new URL(name, import.meta.url).pathname
const inside = (name) => here(`../test/kvm/native/inside/${name}.ts`)

/** The tests' harness, which is TypeScript, as a module in `directory` that knows where its files are. */
const harnessIn = async (directory) => {
  const source = here("../test/kvm/native/support/harness.ts")
  const outfile = join(directory, "harness.mjs")
  await build({
    entryPoints: [source],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    packages: "external",
    define: { "import.meta.url": JSON.stringify(pathToFileURL(source).href) }
  })
  return import(outfile)
}

/** The native side as the command is built (scripts/build.mjs): one file, with V8's code for it. */
const nativeIn = async (directory) => {
  const main = join(directory, "main.cjs")
  await build({
    entryPoints: [inside("reach")],
    outfile: main,
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20",
    minify: true,
    external: ["koffi"],
    logLevel: "error"
  })
  const launch = join(directory, "reach.cjs")
  copyFileSync(here("../src/cli/launch.cjs"), launch)
  const code = `const { code, run } = require(${JSON.stringify(launch)})
    process.on("exit", () => require("node:fs").writeFileSync(${JSON.stringify(`${main}.code`)}, code()))
    run()`
  execFileSync(process.execPath, ["-e", code])
  return launch
}

/** The smallest guest: its init says that it is there, and switches the machine off. */
const initramfs = () => {
  const file = (path, bytes) => ({ kind: "file", path, mode: 0o755, bytes })
  const init = "#!/bin/busybox sh\necho init is up\n/bin/busybox poweroff -f\n"
  return cpioArchive([
    ...["bin", "dev"].map((path) => ({ kind: "directory", path, mode: 0o755 })),
    { kind: "character device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    file("bin/busybox", readFileSync("/bin/busybox")),
    file("init", new TextEncoder().encode(init))
  ])
}

/** What there is of Debian's kernel and of the sched_ext kernel (`npm run kernel`). */
const kernels = Effect.gen(function*() {
  const resolver = yield* KernelResolver
  const debian = yield* resolver.resolve("debian:6.12-cloud")
  const built = yield* Effect.option(resolver.resolve("6.12"))
  return [debian, ...(built._tag === "Some" ? [built.value] : [])]
}).pipe(
  Effect.provide(Layer.provideMerge(Layer.provide(KernelResolver.layer, NativeKoffi.layer), NodeContext.layer))
)

const micros = (n) => n < 1000 ? `${Math.round(n)} us` : `${(n / 1000).toFixed(1)} ms`

const program = Effect.gen(function*() {
  const scratch = join(here("../node_modules/.cache"), "ktstr-bench")
  const { bundle, runInside, shared } = yield* Effect.promise(() => harnessIn(scratch))
  const directory = yield* shared

  if (existsSync("/dev/kvm")) {
    const park = yield* bundle("park", directory)
    const answer = execFileSync(process.execPath, [park, `${FREEZES}`], { encoding: "utf8" })
    for (const { cpus, freezes, max, p50, p99 } of JSON.parse(answer)) {
      console.log(
        `${freezes} freezes of ${cpus} spinning vCPU${cpus === 1 ? "" : "s"}: each stood after ${micros(p50)} (p50), ` +
          `${micros(p99)} (p99), ${micros(max)} (most)`
      )
    }
  } else console.log("no /dev/kvm here: no park times")

  const guest = join(directory, "initramfs-of-the-guest")
  writeFileSync(guest, initramfs())
  const native = yield* Effect.promise(() => nativeIn(directory))
  const ratio = yield* bundle("ratio", directory)
  const images = (yield* kernels).flatMap(({ image, release }) => {
    const elf = join(dirname(image), "vmlinux")
    return [[release, image, image], ...(existsSync(elf) ? [[`${release}, ours from its vmlinux`, image, elf]] : [])]
      .flat()
  })
  const { lines, status } = yield* runInside(ratio, [`${PAIRS}`, native, guest, "", ...images], SECONDS)
  if (status !== 0) return yield* Effect.fail(new Error(lines.slice(-20).join("\n")))
  for (const line of lines.filter((line) => line.startsWith("RATIO "))) {
    const { died, name, ours, qemu, ratio } = JSON.parse(line.slice(6))
    console.log(
      `from the process's start to the init of Linux ${name}: ${ours.toFixed(1)} s, QEMU ${qemu.toFixed(1)} s; ` +
        `ratio ${ratio.toFixed(2)}, limit ${LIMIT}: ${ratio <= LIMIT ? "ok" : "MISSED"}` +
        (died.ours + died.qemu === 0 ? "" : ` (${died.ours} of ours and ${died.qemu} of QEMU's died and were left out)`)
    )
  }
})

await Effect.runPromise(Effect.scoped(program))
