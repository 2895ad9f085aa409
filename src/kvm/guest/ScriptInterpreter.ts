import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { posix } from "node:path"
import { IncludeError } from "./HostFiles.ts"
import { INCLUDES } from "./Init.ts"

/** Bytes of a file's start that the kernel looks at: `BINPRM_BUF_SIZE` of include/uapi/linux/binfmts.h, v6.12. */
const LINE_LIMIT = 256

/**
 * A file that begins with `#!` needs a program that the guest has: an include, or one of busybox's in /bin. Which one it names
 * is read as the kernel reads it (fs/binfmt_script.c `load_script`, v6.12): a CR at the line's end is part of the name.
 * @param path names the file in the error
 * @param has whether the guest has a file at a path, given without its first slash
 */
export const checkInterpreter = (
  path: string,
  start: Uint8Array,
  has: (path: string) => boolean
): Effect.Effect<void, IncludeError> => {
  const line = Buffer.from(start.subarray(0, LINE_LIMIT)).toString("latin1")
  const [, interpreter, words = ""] = /^#![ \t]*([^ \t\n\0]+)([^\n\0]*)/.exec(line) ?? []
  if (interpreter === undefined) return Effect.void
  if ((interpreter + words).endsWith("\r")) {
    const why = "its first line ends with CR LF, and the kernel takes the CR for a part of the interpreter's name"
    return new IncludeError({ path, why, hint: "end its lines with LF: sed -i 's/\\r$//'" })
  }
  const missing = (name: string) =>
    new IncludeError({
      path,
      why: `its interpreter ${name} is not in the guest`,
      hint: `write it for #!/bin/sh, or include the interpreter and begin it with #!/${INCLUDES}/${
        posix.basename(name)
      }`
    })
  return Effect.gen(function*() {
    if (!(yield* inGuest(interpreter, has))) return yield* missing(interpreter)
    if (posix.basename(interpreter) !== "env") return
    // `env -S NAME=value program`
    const program = words.trim().split(/[ \t]+/).find((word) => word !== "" && !/^-|=/.test(word))
    if (program === undefined) return
    const places = program.includes("/") ? [program] : [`/${INCLUDES}/${program}`, `/bin/${program}`]
    const found = yield* Effect.forEach(places, (place) => inGuest(place, has))
    if (!found.includes(true)) return yield* missing(program)
  })
}

const inGuest = (path: string, has: (path: string) => boolean): Effect.Effect<boolean, IncludeError> =>
  has(path.slice(1))
    ? Effect.succeed(true)
    : posix.dirname(path) === "/bin"
    ? Effect.map(busyboxPrograms, (programs) => programs.has(posix.basename(path)))
    : Effect.succeed(false)

/** The names that busybox installs itself under in the guest's /bin. */
const busyboxPrograms: Effect.Effect<ReadonlySet<string>, IncludeError> = Effect.async((resume) => {
  execFile("busybox", ["--list"], (error, stdout) =>
    resume(
      error === null ? Effect.succeed(new Set(stdout.split("\n"))) : new IncludeError({
        path: "busybox",
        why: `it does not list its programs: ${error.message}`,
        hint: "reinstall busybox-static"
      })
    ))
})
