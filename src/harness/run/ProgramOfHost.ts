import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import { resolve } from "node:path"

/**
 * A scheduler's or payload's program cannot be run in a guest.
 *
 * @since 0.1.0
 * @category errors
 */
export class ProgramInvalid extends Schema.TaggedError<ProgramInvalid>("ktstr/ProgramInvalid")("ProgramInvalid", {
  role: Schema.Literal("scheduler", "payload"),
  path: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `the ${this.role} ${this.path}: ${this.why}; ${this.hint}`
  }
}

/** ELF's e_machine of x86-64. */
const X86_64 = 62

/** Look at a program: it is there, and a guest can execute it. */
export const readProgram = (
  role: ProgramInvalid["role"],
  program: string
): Effect.Effect<{ readonly path: string; readonly sha256: string }, ProgramInvalid> =>
  Effect.suspend(() => {
    const path = resolve(program)
    const invalid = (why: string, hint: string) => new ProgramInvalid({ role, path, why, hint })
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
      return invalid("not an ELF program", "give the program itself")
    }
    if (bytes[4] !== 2 || bytes.readUInt16LE(18) !== X86_64) {
      return invalid("not for x86-64", "build it for the guest's architecture")
    }
    return Effect.succeed({ path, sha256: createHash("sha256").update(bytes).digest("hex") })
  })
