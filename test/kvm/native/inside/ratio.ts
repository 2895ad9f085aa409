// Runs where /dev/kvm is real: boots guests by turns on QEMU and on the native engine, a process each, and prints how long
// from the process's start to the first line of the guest's init took. Arguments: how many of each, the native side's
// program, the initramfs, words for the command line, and kernels: what it is, its bzImage, and what the native side boots.
import { spawn } from "node:child_process"
import { writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { createInterface } from "node:readline"

const [pairs, native, initramfs, cmdline, ...kernels] = process.argv.slice(2)
/** What the init says first. */
const MARK = "init is up"
/** Many times longer than it takes: the machine around may be busy. */
const MOST_MILLIS = 300_000

/** Undefined where the guest did not get there, which is said. */
const seconds = (command: string, args: ReadonlyArray<string>): Promise<number | undefined> =>
  new Promise((resolve) => {
    const start = performance.now()
    let took: number | undefined
    const child = spawn(command, args, {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, XDG_CACHE_HOME: tmpdir() }, // the first run leaves V8's code there
      timeout: MOST_MILLIS,
      killSignal: "SIGKILL"
    })
    const last: Array<string> = []
    createInterface({ input: child.stdout }).on("line", (line) => {
      last.push(line)
      if (line.includes(MARK)) took ??= (performance.now() - start) / 1000
    })
    child.on("close", (code, signal) => {
      if (took === undefined) {
        writeSync(1, `${command} ended with ${signal ?? code} before the guest's init: ${last.slice(-5).join("\n")}\n`)
      }
      resolve(took)
    })
  })

// as src/kvm/qemu/Qemu.ts starts it, but for the channels that the tests of ktstr need and a guest's boot does not
const qemu = (kernel: string) =>
  seconds(
    "qemu-system-x86_64",
    [
      ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc", "-accel", "kvm"],
      ["-cpu", "max", "-smp", "1", "-m", "512M", "-serial", "stdio", "-kernel", kernel, "-initrd", initramfs],
      ["-append", `console=ttyS0 panic=-1 no_timer_check cryptomgr.notests ${cmdline}`]
    ].flat()
  )
const ours = (kernel: string) => seconds(process.execPath, [native, kernel, initramfs, cmdline])

const median = (numbers: ReadonlyArray<number>) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]

for (let at = 0; at < kernels.length; at += 3) {
  const [name, bzImage, kernel] = kernels.slice(at, at + 3)
  const times: Array<readonly [ours: number, qemu: number]> = []
  const died = { ours: 0, qemu: 0 }
  // the first pair brings the files into the machine's memory, and V8's code into the cache
  for (let pair = 0; times.length < Number(pairs); pair++) {
    const [our, its] = [await ours(kernel), await qemu(bzImage)]
    writeSync(1, `${name}: ${our?.toFixed(1)} s, QEMU ${its?.toFixed(1)} s\n`)
    if (our === undefined) died.ours++
    if (its === undefined) died.qemu++
    if (died.ours + died.qemu > Number(pairs)) throw new Error(`too many guests died: ${JSON.stringify(died)}`)
    if (pair > 0 && our !== undefined && its !== undefined) times.push([our, its])
  }
  const result = {
    name,
    ours: median(times.map(([a]) => a)),
    qemu: median(times.map(([, b]) => b)),
    ratio: median(times.map(([a, b]) => a / b)),
    times,
    died
  }
  writeSync(1, `RATIO ${JSON.stringify(result)}\n`)
}
