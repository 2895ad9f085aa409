import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fd } from "../../../src/kvm/qemu/QemuProcess.ts"
import { Moment } from "../../../src/monitor/index.ts"
import { complaints, ktstr, place, processesWith, until } from "../../support/cli.ts"
import { kernelImage, matrix } from "../../support/kernels.ts"

const WRONG = new URL("../../support/wrongDebugger.mjs", import.meta.url).pathname
const QEMU = "qemu-system-x86_64"

/** Becomes the next QEMU on the PATH, whose gdb server is spoken to through a child: wrongDebugger.mjs. */
const BETWEEN = `use Socket; use POSIX ();
  my ($node, $script, $way, @qemu) = @ARGV; # $0 tells whose the child is
  socketpair(my $ours, my $its, PF_UNIX, SOCK_STREAM, 0) or die $!;
  if (!fork) {
    POSIX::dup2(${fd.debugger}, 13) && POSIX::dup2(fileno($ours), 14) or die $!;
    POSIX::close($_) for 3 .. 12, 15 .. 63;
    open STDIN, "<", "/dev/null"; open STDOUT, ">", "/dev/null"; open STDERR, ">", "/dev/null";
    POSIX::dup2(13, 3) && POSIX::dup2(14, 4) or die $!;
    POSIX::close($_) for 13, 14;
    exec $node, $script, $way, $0 or die $!;
  }
  POSIX::dup2(fileno($its), ${fd.debugger}) or die $!;
  exec @qemu or die $!`

const decode = Schema.decodeUnknown(Schema.parseJson(Moment))

/** A PATH with a QEMU whose gdb server is wrong in this way. */
const pathWith = (directory: string, way: string): string => {
  const path = process.env["PATH"] ?? ""
  const real = path.split(":").map((each) => join(each, QEMU)).find((each) => existsSync(each)) ?? assert.fail(QEMU)
  mkdirSync(directory)
  writeFileSync(join(directory, "between.pl"), BETWEEN)
  const words = ["perl", join(directory, "between.pl"), process.execPath, WRONG, way, real].map((word) => `"${word}"`)
  writeFileSync(join(directory, QEMU), `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`)
  chmodSync(join(directory, QEMU), 0o755)
  return `${directory}:${path}`
}

const ASKING = String.raw`: QEMU's gdb server, Z2,[0-9a-f]+,4: `
const LOST = ": QEMU's gdb server, its connection: "
const HELD = "the guest was not said to stand; "

/** Each way, with what is said of it; undefined where the moments are taken all the same. */
const ways: ReadonlyArray<readonly [way: string, why: string | undefined]> = [
  ["says nothing", `${ASKING}no answer within 10 s; `],
  ["speaks garbage", `${ASKING}neither a packet nor its receipt: byte 0x1b; `],
  ["hangs up when the guest stands", `${LOST}the connection has ended; `],
  ["is good", undefined],
  ["hangs up", `${ASKING}the connection has ended; `],
  ["sends receipts only", `${ASKING}no answer within 10 s; `],
  ["refuses with control characters", String.raw`${ASKING}refused: E\\x1b\[31m99; `],
  ["answers with a wrong checksum", `${ASKING}a packet whose checksum is 9a, not 00; `],
  ["answers without an end", `${ASKING}a packet without an end; `],
  ["sends receipts without an end", `${ASKING}no answer within 10 s; `],
  ["does not let the guest go on", `${LOST}${HELD}`],
  ["says that the guest has ended", `${LOST}not that the guest stands: W00; `],
  ["says that the guest stands in garbage", `${LOST}a packet whose checksum is .*; `],
  ["does not say that the guest stands", `${LOST}${HELD}`],
  ["says a thousand times that the guest stands", undefined]
]
const tried = matrix.length === 0 ? ways.slice(0, 3) : ways

/** The first writes may come before the watch does. */
const SCRIPT = "for n in $(seq 20); do sleep 0.3; echo $n >/proc/sys/kernel/panic; done; echo @wrote; exit 7"

// most of them wait
describe.concurrent("vm run --snapshot write says what is wrong with QEMU's gdb server, and the guest goes on, where it", () => {
  for (const [way, why] of tried) {
    it.live(way, () =>
      Effect.gen(function*() {
        const { cwd, env, leftovers, mark } = yield* place
        const [tools, directory] = [join(cwd, "tools"), join(cwd, "moments")]
        const guest = ["--kernel", yield* kernelImage("6.12"), "--memory-mib", "192", "--cmdline", mark]
        const wanted = ["--snapshots", directory, "--snapshot", "write=panic_timeout"]
        const ran = yield* ktstr(["vm", "run", ...guest, "--exec", SCRIPT, "--timeout", "120", ...wanted], {
          cwd,
          env: { ...env, PATH: pathWith(tools, way) }
        })
        assert.deepStrictEqual([ran.code, ran.stdout], [7, "@wrote\n"], ran.stderr)
        const not = complaints(ran).filter((line) => line.includes("not taken"))
        const names = readdirSync(directory).sort()
        if (why === undefined) {
          assert.deepStrictEqual(not, [])
          assert.isAbove(names.length, 0)
        } else {
          // no moment is said to be missing that is there
          const next = `panic_timeout_${String(names.length).padStart(3, "0")}.json`
          assert.match(not.join("\n"), new RegExp(`^  \\S+/${next}: not taken: writes to panic_timeout .*${why}boot`))
        }
        for (const name of names) {
          const { reading } = yield* decode(readFileSync(join(directory, name), "utf8"))
          assert.isFalse("kind" in reading, name)
        }
        const left = () => [...leftovers(), ...processesWith(tools)].sort()
        yield* Effect.promise(() => until("everything is gone", () => left().length <= 2, 20))
        assert.deepStrictEqual(left(), ["moments", "tools"])
      }).pipe(Effect.scoped), 300_000)
  }
})
