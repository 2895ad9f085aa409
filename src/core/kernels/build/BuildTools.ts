import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as Effect from "effect/Effect"
import { HostLacks } from "../../Errors.ts"
import { runToEnd } from "../../process/Subprocess.ts"

/**
 * The programs that a kernel with `TEST_KCONFIG` is built with, and the Debian packages that have them
 * (Documentation/process/changes.rst, v6.12). OpenSSL is not among them: only signed modules and keyrings need it.
 */
const PACKAGES: ReadonlyMap<string, string> = new Map([
  ["make", "make"],
  ["gcc", "gcc"],
  ["ld", "binutils"],
  ["strip", "binutils"],
  ["flex", "flex"],
  ["bison", "bison"],
  ["bc", "bc"],
  ["pahole", "dwarves"],
  ["lz4", "lz4"],
  ["python3", "python3-minimal"] // scripts/bpf_doc.py, for the libbpf of resolve_btfids
])
/** Of libelf, which objtool and resolve_btfids are built with. */
const HEADER = "gelf.h"
const HEADER_PACKAGE = "libelf-dev"
const HINT = "run `apt-get install gcc make`"

/** Fail, naming all that is missing, where this host cannot build a kernel. */
export const requireBuildTools: Effect.Effect<void, HostLacks, CommandExecutor.CommandExecutor> = Effect.gen(
  function*() {
    const look = "for name; do command -v \"$name\" >/dev/null || echo \"$name\"; done"
    const { stdout } = yield* runToEnd("sh", ["-c", look, "sh", ...PACKAGES.keys()], HINT)
    const missing = stdout.split("\n").filter((name) => name !== "")
    const packages = missing.flatMap((name) => PACKAGES.get(name) ?? [])
    const hasHeader = !missing.includes("gcc") &&
      (yield* runToEnd("gcc", ["-E", "-x", "c", "-include", HEADER, "/dev/null"], HINT)).code === 0
    if (!hasHeader) {
      missing.push(HEADER)
      packages.push(HEADER_PACKAGE)
    }
    if (missing.length === 0) return
    return yield* new HostLacks({
      what: missing.join(", "),
      why: "needed to build a kernel",
      hint: `run \`apt-get install ${[...new Set(packages)].join(" ")}\``
    })
  }
)
