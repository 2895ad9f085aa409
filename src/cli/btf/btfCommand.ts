import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import { output, text } from "../source/options.ts"

const handlers = Effect.promise(() => import("./btf.ts"))

/** Whose BTF: this host's kernel's, if neither is given. */
const source = {
  kernel: text("kernel", "ID", "the BTF of this kernel: debian:6.12-cloud, a key of `kernel list`, a path"),
  btf: text("btf", "FILE", "the BTF in this file: raw, or a vmlinux, a module, a BPF object, a bzImage")
}
const base = text(
  "base",
  "FILE",
  "with --btf of a module: the BTF that it continues, /sys/kernel/btf/vmlinux as a rule"
)
const types = Args.text({ name: "type" }).pipe(
  Args.withDescription("a name, or `struct NAME`, `union NAME`, `enum NAME`, `typedef NAME`"),
  Args.repeated
)

const show = Command.make(
  "show",
  { ...source, base, json: output.json, types },
  (config) => Effect.flatMap(handlers, (module) => module.show(config))
).pipe(
  Command.withDescription("Print types as C, with the offset and size of each member, as pahole does")
)

const header = Command.make(
  "header",
  { ...source, base, json: output.json },
  (config) => Effect.flatMap(handlers, (module) => module.header(config))
).pipe(
  Command.withDescription("Say what the BTF is made up of: its header, and how many types of each kind")
)

const offsets = Command.make("offsets", {
  ...source,
  json: output.json,
  group: Options.text("group").pipe(
    Options.withPseudoName("NAME"),
    Options.withDescription("only this group, with its fields"),
    Options.repeated
  )
}, (config) => Effect.flatMap(Effect.promise(() => import("./btfOffsets.ts")), (module) => module.offsets(config)))
  .pipe(
    Command.withDescription("List the groups of kernel fields that ktstr reads: which this kernel has, and why not")
  )

const side = (name: string) =>
  Args.text({ name }).pipe(Args.withDescription("a kernel's id, or a file as --btf of `btf show` takes"))

const diff = Command.make(
  "diff",
  { before: side("a"), after: side("b"), types, json: output.json },
  (config) => Effect.flatMap(handlers, (module) => module.diff(config))
).pipe(
  Command.withDescription(
    "Say what moved in structs and unions from one kernel to another; without a type, in which of all"
  )
)

/** `ktstr btf …` */
export const btf = Command.make("btf").pipe(
  Command.withDescription("Show a kernel's types, where it keeps what ktstr reads, and what differs between two"),
  Command.withSubcommands([show, offsets, header, diff])
)
