// How long vCPUs take to stand when a guest is frozen, on this machine's /dev/kvm; and how long the native engine takes
// from its process's start to the first word of the guest's init, beside QEMU on the same KVM with the same kernel and
// initramfs. The latter inside an emulated machine that has real KVM, which takes some minutes.
import * as Effect from "effect/Effect"
import { build } from "esbuild"
import { KernelResolver } from "ktstr"
import { execFileSync } from "node:child_process"
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { pathToFileURL } from "node:url"
import { cpioArchive } from "../dist/kvm/guest/Cpio.js"
import { bundleStarted } from "../scripts/bundle.mjs"
import { Host, KERNEL } from "./images.mjs"
import { here } from "./measure.mjs"

const FREEZES = 1000
const PAIRS = 5
const SECONDS = 1500

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

/** The native side as the command is built: one file, started with V8's code of an earlier run. */
const nativeIn = async (directory) => {
  await bundleStarted({ entryPoints: [inside("reach")], outfile: join(directory, "main.cjs") })
  const launch = join(directory, "reach.cjs")
  copyFileSync(here("../src/cli/start.cjs"), launch)
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
  const debian = yield* resolver.resolve(KERNEL)
  const built = yield* Effect.option(resolver.resolve("6.12"))
  return [debian, ...(built._tag === "Some" ? [built.value] : [])]
}).pipe(Effect.provide(Host))

/** The harness, and the directory that its machine shares. */
const harness = Effect.gen(function*() {
  const module = yield* Effect.promise(() => harnessIn(join(here("../node_modules/.cache"), "ktstr-bench")))
  return { ...module, directory: yield* module.shared }
})

/** By number of vCPUs: how long they took to stand, in microseconds. Empty without /dev/kvm, and says so. */
export const freezeTimes = () =>
  Effect.gen(function*() {
    if (!existsSync("/dev/kvm")) {
      process.stderr.write("bench: no /dev/kvm here: no freeze times\n")
      return []
    }
    const { bundle, directory } = yield* harness
    const park = yield* bundle("park", directory)
    return JSON.parse(execFileSync(process.execPath, [park, `${FREEZES}`], { encoding: "utf8" }))
  }).pipe(Effect.scoped, Effect.runPromise)

/** By kernel: seconds from the process's start to the guest's init, ours and QEMU's, in pairs. */
export const bootRatios = () =>
  Effect.gen(function*() {
    const { bundle, directory, runInside } = yield* harness
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
    return lines.filter((line) => line.startsWith("RATIO ")).map((line) => JSON.parse(line.slice(6)))
  }).pipe(Effect.scoped, Effect.runPromise)
