import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { flag, output, timeLimit } from "../source/options.ts"
import { buildOptions, cleanOptions } from "./kernelOptions.ts"

const handlers = () => import("./kernel.ts")

const id = Args.text({ name: "id" }).pipe(
  Args.withDescription("6.14, 6.12..6.14, debian:6.12-cloud, git+URL#REF, a path, or a key that `kernel list` prints")
)
const anyId = Args.optional(id)

const list = Command.make("list", { json: output.json, ...timeLimit }, handler(handlers, (module) => module.list)).pipe(
  Command.withDescription("List the cached kernels, newest first, broken entries too")
)

const path = Command.make("path", { id: anyId, ...timeLimit }, handler(handlers, (module) => module.path)).pipe(
  Command.withDescription(
    "Print the path of a kernel's image. Without an id, of the first of these: $KTSTR_KERNEL, the newest in the cache, "
      + "./linux, ../linux, the running kernel's"
  )
)

const show = Command.make("show", {
  id: anyId,
  config: flag("config", "print the kernel's whole .config instead"),
  json: output.json,
  ...timeLimit
}, handler(handlers, (module) => module.show)).pipe(
  Command.withDescription("Describe a kernel: release, source, build id, BTF, symbols, config options")
)

const fetch = Command.make("fetch", { id, ...timeLimit }, handler(handlers, (module) => module.fetch)).pipe(
  Command.withDescription("Put one of Debian's kernels into the cache: debian:SERIES, RELEASE, PACKAGE or PATTERN")
)

const search = Command.make("search", {
  wanted: Args.text({ name: "wanted" }).pipe(
    Args.withDescription(
      "a series (6.12, 7.3-cloud), a release, a package, or a pattern of those ('6.1*'); SUITE/… pins"
    ),
    Args.optional
  ),
  json: output.json,
  ...timeLimit
}, handler(handlers, (module) => module.search)).pipe(
  Command.withDescription("List the kernels that Debian's suites offer, newest first")
)

const build = Command.make("build", { ...buildOptions, ...timeLimit }, handler(handlers, (module) => module.build))
  .pipe(
    Command.withDescription("Build a kernel with sched_ext, BPF and BTF into the cache, and print its key")
  )

const clean = Command.make("clean", { ...cleanOptions, ...timeLimit }, handler(handlers, (module) => module.clean))
  .pipe(
    Command.withDescription("Remove kernels from the cache")
  )

/** `ktstr kernel …` */
export const kernel = Command.make("kernel").pipe(
  Command.withDescription("List, search, fetch, build and remove kernels"),
  Command.withSubcommands([list, search, path, show, fetch, build, clean])
)
