import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { count, flag, output, text } from "../source/options.ts"

const handlers = Effect.promise(() => import("./kernel.ts"))

const id = Args.text({ name: "id" }).pipe(
  Args.withDescription("6.14, 6.12..6.14, debian:6.12-cloud, git+URL#REF, a path, or a key that `kernel list` prints")
)
const anyId = Args.optional(id)

const list = Command.make(
  "list",
  { json: output.json },
  (config) => Effect.flatMap(handlers, (module) => module.list(config))
).pipe(
  Command.withDescription("List the kernels in the cache, newest first, broken entries too")
)

const path = Command.make("path", { id: anyId }, (config) => Effect.flatMap(handlers, (module) => module.path(config)))
  .pipe(
    Command.withDescription(
      "Print the path of a kernel's image; without an id of the one that is found: $KTSTR_KERNEL, the cache's newest, " +
        "./linux, ../linux, then the running kernel's"
    )
  )

const show = Command.make("show", {
  id: anyId,
  config: flag("config", "print the kernel's whole .config instead"),
  json: output.json
}, (config) => Effect.flatMap(handlers, (module) => module.show(config))).pipe(
  Command.withDescription("Say what a kernel is: release, source, build id, BTF, symbols, config options")
)

const fetch = Command.make("fetch", { id }, (config) => Effect.flatMap(handlers, (module) => module.fetch(config)))
  .pipe(
    Command.withDescription("Get one of Debian's kernels into the cache: debian:SERIES, RELEASE, PACKAGE or PATTERN")
  )

export const buildOptions = {
  version: Args.text({ name: "version" }).pipe(
    Args.withDescription("6.14.2; 6.14 is the newest of that series; 6.15-rc3"),
    Args.optional
  ),
  source: text("source", "DIR", "build this kernel tree, which is not touched"),
  git: text("git", "URL", "build a commit of this repository; with --ref"),
  ref: text("ref", "REF", "a branch, tag or commit of --git"),
  tarball: text("tarball", "FILE-OR-URL", "build the kernel source in this archive"),
  extraKconfig: text("extra-kconfig", "FILE", "options that are added to ours, and win over them"),
  cpuCap: count("cpu-cap", 1, "compile on so many CPUs; all of them if not given"),
  output: text("output", "DIR", "where a kernel goes that is not stored, because its tree has changes"),
  force: flag("force", "build even when the cache has it")
}

const build = Command.make(
  "build",
  buildOptions,
  (config) => Effect.flatMap(handlers, (module) => module.build(config))
).pipe(
  Command.withDescription("Build a kernel with sched_ext, BPF and BTF, and keep it in the cache; prints its key")
)

export const cleanOptions = {
  keep: count("keep", 0, "keep the newest N entries"),
  corruptOnly: flag("corrupt-only", "remove only broken entries"),
  all: flag("all", "remove every entry")
}

const clean = Command.make(
  "clean",
  cleanOptions,
  (config) => Effect.flatMap(handlers, (module) => module.clean(config))
).pipe(
  Command.withDescription("Remove kernels from the cache")
)

/** `ktstr kernel …` */
export const kernel = Command.make("kernel").pipe(
  Command.withDescription("List, find, fetch, build and remove kernels"),
  Command.withSubcommands([list, path, show, fetch, build, clean])
)
