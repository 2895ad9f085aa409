import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import { handler } from "../handler.ts"
import { output, text, timeLimit, words } from "../source/options.ts"

const handlers = () => import("./btf.ts")

/** Whose BTF: this host's kernel's, if neither is given. */
const source = {
  kernel: text("kernel", "ID", "the BTF of this kernel: debian:6.12-cloud, a key of `ktstr kernel list`, a path"),
  btf: text("btf", "FILE", "the BTF in this file: raw, or a vmlinux, module, BPF object or bzImage")
}
const base = text("base", "FILE", "with --btf of a module: its base BTF, usually /sys/kernel/btf/vmlinux")
const types = Args.text({ name: "type" }).pipe(
  Args.withDescription("a name, or `struct NAME`, `union NAME`, `enum NAME`, `typedef NAME`"),
  Args.repeated
)

const show = Command.make(
  "show",
  { ...source, base, json: output.json, ...timeLimit, types },
  handler(handlers, (module) => module.show)
).pipe(Command.withDescription("Print types as C, with each member's offset and size, as pahole does"))

const header = Command.make(
  "header",
  { ...source, base, json: output.json, ...timeLimit },
  handler(handlers, (module) => module.header)
).pipe(Command.withDescription("Print a BTF's header, and how many types of each kind it has"))

const offsets = Command.make("offsets", {
  ...source,
  json: output.json,
  ...timeLimit,
  group: words("group", "NAME", "only this group, with its fields").pipe(Options.repeated)
}, handler(() => import("./btfOffsets.ts"), (module) => module.offsets)).pipe(
  Command.withDescription(
    "List the groups of kernel fields that ktstr reads: which are available in this kernel, and why the others are not"
  )
)

const side = (name: string) =>
  Args.text({ name }).pipe(Args.withDescription("a kernel's id, or a file that --btf of `btf show` takes"))

const diff = Command.make(
  "diff",
  { before: side("a"), after: side("b"), types, json: output.json, ...timeLimit },
  handler(handlers, (module) => module.diff)
).pipe(
  Command.withDescription(
    "Compare structs, unions, enums and typedefs of two kernels, by members and values; without a type, list all that differ"
  )
)

/** `ktstr btf …` */
export const btf = Command.make("btf").pipe(
  Command.withDescription("Show a kernel's types, compare two kernels' types"),
  Command.withSubcommands([show, offsets, header, diff])
)
