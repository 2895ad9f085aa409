// Runs where /dev/kvm is real: the command finds that out by itself, and runs commands and a shell on the native engine.
// Arguments: the command, and a kernel.
import assert from "node:assert"
import { spawn, spawnSync } from "node:child_process"
import { writeSync } from "node:fs"
import { stripVTControlCharacters } from "node:util"

const start = performance.now()
const say = (text: string) => writeSync(1, `[${((performance.now() - start) / 1000).toFixed(1)} s] ${text}\n`)
const [command, kernel] = process.argv.slice(2)
/** Only the native engine's guests have such a word. */
const native = "grep -c virtio_mmio.device /proc/cmdline"
const machine = ["--kernel", kernel, "--memory-mib", "256", "--timeout", "120"]

const ktstr = (...args: ReadonlyArray<string>) =>
  spawnSync(process.execPath, [command, ...args], { stdio: ["ignore", "pipe", "inherit"], encoding: "utf8" })

const doctor = ktstr("doctor", "--json")
const { canBoot, engine } = JSON.parse(doctor.stdout)
assert.deepStrictEqual({ status: doctor.status, canBoot, engine }, { status: 0, canBoot: true, engine: "kvm" })
say("ok: the doctor takes the native engine")

const run = ktstr("vm", "run", ...machine, "--exec", `${native}; exit 7`)
assert.deepStrictEqual({ status: run.status, stdout: run.stdout }, { status: 7, stdout: "1\n" })
say("ok: vm run takes it too, and ends as its commands do")

/** On a terminal of its own (script(1)), whose keys are our stdin's. */
const words = [process.execPath, command, "vm", "shell", ...machine].map((word) => `'${word}'`).join(" ")
const lines = `stty rows 33 cols 101; before=$(stty -g); ${words}; echo "code=$?"
  [ "$before" = "$(stty -g)" ] && echo "as before"`
const terminal = spawn("script", ["-qefc", lines, "/dev/null"], { stdio: ["pipe", "pipe", "inherit"] })
let said = ""
const has = (pattern: RegExp) =>
  new Promise<void>((resolve, reject) => {
    const look = () => pattern.test(stripVTControlCharacters(said)) && resolve()
    terminal.stdout.on("data", look)
    terminal.on("close", () => reject(new Error(`no ${pattern} on the terminal, which has:\n${said}`)))
    look()
  })
terminal.stdout.setEncoding("latin1").on("data", (more: string) => said += more)
await has(/\/root # [^\r\n]*$/)
// each answer is another text than the keys, which the guest's terminal shows too
terminal.stdin.write(`echo "it is $(tty) $(stty size) $(${native})"\r`)
await has(/^it is \/dev\/ttyS0 33 101 1\r*$/m)
terminal.stdin.write("exit\r")
await has(/^code=0\r*$/m)
await has(/^as before\r*$/m)
terminal.stdin.end()
say("ok: vm shell is the guest's terminal, and leaves the user's as it was")
