import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { build } from "esbuild"
import { execFileSync, spawn } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { homedir } from "node:os"
import { basename, join } from "node:path"
import { createInterface } from "node:readline"
import { cpioArchive, type CpioEntry } from "../../../../src/kvm/guest/Cpio.ts"
import type { QemuProgram } from "../../../../src/kvm/qemu/Emulation.ts"

// Real KVM on any machine: QEMU emulates a CPU with AMD's virtualization, a Debian kernel in it has /dev/kvm (kvm-amd on
// emulated SVM with nested paging), and its root is this machine's own, so what is installed here runs there too.

const cache = join(homedir(), ".cache/ktstr/inside")
/** Where a job lies that imports packages of this checkout. */
const jobs = new URL("../../../../node_modules/.cache/ktstr-inside", import.meta.url).pathname
/** In the order of insertion. */
const modules = ["netfs", "9pnet", "9pnet_virtio", "9p", "irqbypass", "ccp", "kvm", "kvm-amd"]

/** Debian's newest 6.12 kernel that is not the cloud flavour, which has no KVM: its bzImage and modules, kept. */
const outerKernel = (): { readonly image: string; readonly modules: ReadonlyArray<string> } => {
  mkdirSync(cache, { recursive: true })
  const known = readdirSync(cache).find((name) => name.startsWith("linux-image-"))
  const directory = join(cache, known ?? fetchKernel())
  const files = readdirSync(directory, { recursive: true, encoding: "utf8" })
  const file = (pattern: RegExp) => {
    const found = files.find((name) => pattern.test(name))
    if (found === undefined) throw new Error(`${directory} has no ${pattern.source}; remove it, and it is fetched anew`)
    return join(directory, found)
  }
  return { image: file(/^boot\/vmlinuz-/), modules: modules.map((name) => file(new RegExp(`/${name}\\.ko\\.xz$`))) }
}

const fetchKernel = (): string => {
  const search = ["search", "--names-only", "^linux-image-6\\.12\\.[0-9.]+\\+deb[0-9]+-amd64-unsigned$"]
  const names = execFileSync("apt-cache", search, { encoding: "utf8" }).split("\n").flatMap((line) =>
    line.split(" ").slice(0, 1).filter((name) => name !== "")
  )
  const name = names.sort(new Intl.Collator("en", { numeric: true }).compare).at(-1)
  if (name === undefined) throw new Error("apt knows no linux-image-6.12*-amd64-unsigned; run apt-get update")
  const directory = mkdtempSync(join(cache, "new-"))
  try {
    execFileSync("apt-get", ["-q", "download", name], { cwd: directory, stdio: ["ignore", "ignore", "pipe"] })
    const [archive] = readdirSync(directory)
    execFileSync("dpkg", ["-x", join(directory, archive), join(directory, "root")])
    renameSync(join(directory, "root"), join(cache, name))
  } catch (error) {
    // another test file may have fetched the same package meanwhile
    if (!existsSync(join(cache, name))) throw error
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  return name
}

const initramfs = (kernel: ReturnType<typeof outerKernel>, job: string): Uint8Array => {
  const file = (path: string, bytes: Uint8Array): CpioEntry => ({ kind: "file", path, mode: 0o755, bytes })
  return cpioArchive([
    ...["bin", "dev", "mnt", "modules", "proc", "sys"].map((path): CpioEntry => ({
      kind: "directory",
      path,
      mode: 0o755
    })),
    { kind: "character device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    file("bin/busybox", readFileSync("/bin/busybox")),
    file("init", readFileSync(new URL("l1-init.sh", import.meta.url))),
    file("job", new TextEncoder().encode(job)),
    ...kernel.modules.map((path, index) =>
      file(`modules/${index}-${basename(path, ".xz")}`, execFileSync("xz", ["-dc", path], { maxBuffer: 2 ** 27 }))
    )
  ])
}

/**
 * A directory that programs inside can read, and where they find the packages of this checkout; gone with the scope, and
 * that of a run which was killed with the next run.
 */
export const shared = Effect.acquireRelease(
  Effect.sync(() => {
    mkdirSync(jobs, { recursive: true })
    for (const name of readdirSync(jobs)) {
      const owner = /^run-(\d+)-/.exec(name)?.[1]
      if (owner !== undefined && !existsSync(`/proc/${owner}`)) {
        rmSync(join(jobs, name), { recursive: true, force: true })
      }
    }
    return mkdtempSync(join(jobs, `run-${process.pid}-`))
  }),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** Bundle a program of `test/kvm/native/inside` into `directory`: over 9p, hundreds of files would take a minute. */
export const bundle = (name: string, directory: string) =>
  Effect.promise(async () => {
    const outfile = join(directory, `${name}.mjs`)
    await build({
      entryPoints: [new URL(`../inside/${name}.ts`, import.meta.url).pathname],
      outfile,
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      logLevel: "error",
      external: ["koffi", "lzma-native", "lz4-napi", "numcodecs"]
    })
    return outfile
  })

/** The machine did not get as far as the program's exit status. */
class InsideFailed extends Schema.TaggedError<InsideFailed>("test/InsideFailed")("InsideFailed", {
  why: Schema.String,
  lastLines: Schema.Array(Schema.String)
}) {
  override get message() {
    return `${this.why}; the machine last said:\n${this.lastLines.join("\n")}`
  }
}

interface Inside {
  readonly status: number
  /** What the program printed, and the kernel beside it. */
  readonly lines: ReadonlyArray<string>
}

/** Words for the kernel about its clock. KVM makes its guests' of the TSC: only an emulated one could seem unreliable. */
const TSC_CLOCK = "tsc=reliable"
/** Its clock is one that takes long to read. */
export const HPET_CLOCK = "clocksource=hpet"

/**
 * One CPU: with two, QEMU 7.2's threads race where a kernel patches its code (`Oops: int3`), and guests
 * whose threads moved from one to the other died of triple faults. And a tick that comes whether it was heard or not: the
 * emulated SVM now and then loses that an interrupt is waiting (`do_vmexit` changes `interrupt_request` without a lock),
 * and a timer that is set from tick to tick would stand still for good.
 */
const STEADY = { cpus: "1", words: "nohz=off highres=off" }

export interface InsideOptions {
  /** The kernel's words about its clock. */
  readonly clock?: string
  /** The QEMU that emulates the machine; that of the PATH. */
  readonly qemu?: QemuProgram
}

/**
 * Run a Node program where /dev/kvm is real: a CPU and 3 GiB, emulated, this machine's files read-only, /run writable.
 * Whatever it prints goes to stderr at once if KTSTR_INSIDE is set.
 * @param seconds after which it is ended, and this fails
 */
export const runInside = (
  program: string,
  args: ReadonlyArray<string>,
  seconds: number,
  { clock = TSC_CLOCK, qemu = { path: "qemu-system-x86_64", firmware: [] } }: InsideOptions = {}
) =>
  Effect.scoped(Effect.gen(function*() {
    const directory = yield* shared
    const kernel = outerKernel()
    const job = [process.execPath, program, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ")
    const initrd = join(directory, "initramfs")
    writeFileSync(initrd, initramfs(kernel, job))
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(
          "setpriv", // it goes with us, whatever ends us
          [
            ["--pdeathsig", "KILL", qemu.path, ...qemu.firmware.flatMap((path) => ["-L", path])],
            ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
            ["-accel", "tcg", "-cpu", "max,+svm,+npt", "-m", "3G", "-smp", STEADY.cpus],
            ["-kernel", kernel.image, "-initrd", initrd],
            [
              "-append",
              `console=ttyS0 panic=-1 nokaslr loglevel=5 mitigations=off cryptomgr.notests ${STEADY.words} ${clock}`
            ],
            ["-virtfs", "local,path=/,mount_tag=root,security_model=passthrough,readonly=on,multidevs=remap"]
          ].flat(),
          { stdio: ["ignore", "pipe", "pipe"] }
        )
      ),
      (started) => Effect.sync(() => started.kill("SIGKILL"))
    )
    const lines: Array<string> = []
    const end = Effect.promise(() =>
      new Promise<void>((resolve) => {
        for (const stream of [child.stdout, child.stderr]) {
          createInterface({ input: stream }).on("line", (line) => {
            lines.push(line.replace(/\r+$/, ""))
            if (process.env["KTSTR_INSIDE"] !== undefined) process.stderr.write(`${line}\n`)
          })
        }
        child.on("error", (error) => lines.push(error.message))
        child.on("close", () => resolve())
      })
    )
    yield* Effect.timeoutFail(end, {
      duration: `${seconds} seconds`,
      onTimeout: () => new InsideFailed({ why: `not done within ${seconds} s`, lastLines: lines.slice(-20) })
    })
    const status = lines.flatMap((line) => /^INSIDE_EXIT=(\d+)/.exec(line)?.[1] ?? []).at(-1)
    return status === undefined
      ? yield* new InsideFailed({ why: "no exit status of the program", lastLines: lines.slice(-20) })
      : { status: Number(status), lines } satisfies Inside
  }))
