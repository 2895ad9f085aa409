import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import { basename, resolve } from "node:path"
import type { GivenScheduler } from "./AssembleRun.ts"

/**
 * A scheduler to test: a program that attaches it and stays.
 *
 * @since 0.1.0
 * @category models
 */
export interface Scheduler {
  /** Its name in reports. */
  readonly name: string
  /** The path of its program on this host. */
  readonly binary: string
  readonly args?: ReadonlyArray<string>
  /** The beginning of its name in /sys/kernel/sched_ext/root/ops; the program's name without `scx_`. */
  readonly ops?: string
}

/**
 * A scheduler's program cannot be run in a guest.
 *
 * @since 0.1.0
 * @category errors
 */
export class SchedulerInvalid
  extends Schema.TaggedError<SchedulerInvalid>("ktstr/SchedulerInvalid")("SchedulerInvalid", {
    path: Schema.String,
    why: Schema.String,
    hint: Schema.String
  })
{
  override get message() {
    return `the scheduler ${this.path}: ${this.why}; ${this.hint}`
  }
}

/** ELF's e_machine of x86-64. */
const X86_64 = 62

/** Look at a scheduler's program: it is there, and a guest can execute it. */
export const readScheduler = (scheduler: Scheduler): Effect.Effect<GivenScheduler, SchedulerInvalid> =>
  Effect.suspend(() => {
    const path = resolve(scheduler.binary)
    const invalid = (why: string, hint: string) => new SchedulerInvalid({ path, why, hint })
    let bytes: Buffer
    try {
      const info = statSync(path)
      if (!info.isFile()) return invalid("not a regular file", "give the path of a program")
      if ((info.mode & 0o111) === 0) return invalid("not executable", `chmod +x ${path}`)
      bytes = readFileSync(path)
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : String(error)
      return invalid(code === "ENOENT" ? "no such file" : code, "check the path, or build it")
    }
    if (bytes.subarray(0, 2).toString("latin1") === "#!") {
      return invalid("a script, and the guest has no interpreter for it", "give the program itself")
    }
    if (bytes.length < 20 || bytes.readUInt32BE(0) !== 0x7f454c46) {
      return invalid("not an ELF program", "give the program that attaches the scheduler")
    }
    if (bytes[4] !== 2 || bytes.readUInt16LE(18) !== X86_64) {
      return invalid("not for x86-64", "build it for the guest's architecture")
    }
    const name = basename(path)
    return Effect.succeed({
      name: scheduler.name,
      path,
      arguments: scheduler.args ?? [],
      sha256: createHash("sha256").update(bytes).digest("hex"),
      ops: scheduler.ops ?? name.replace(/^scx_/, "")
    })
  })
