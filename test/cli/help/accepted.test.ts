import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { ktstr as command } from "../../../src/cli/commands.ts"
import { type CommandNode, commandTree, type OptionNode } from "../../../src/cli/help/CommandTree.ts"
import { ktstr, place } from "../../support/cli.ts"

const leaves = (node: CommandNode, path: ReadonlyArray<string>): ReadonlyArray<readonly [string, CommandNode]> =>
  node.subcommands.length === 0
    ? [[path.join(" "), node]]
    : node.subcommands.flatMap((child) => leaves(child, [...path, child.name]))

/** Values that are well-formed, of things that are not there: nothing boots, and nothing is fetched. */
const VALUES: Readonly<Record<string, string>> = {
  class: "fair",
  comm: "x",
  cpu: "0",
  dsq: "local",
  every: "1s",
  watchdog: "30s",
  html: "./missing.html",
  core: "./missing.core",
  group: "run-queue",
  map: "nosuch",
  key: "1",
  scheduler: "/bin/true",
  "scheduler-arg": "x",
  ops: "x",
  topology: "1,1,1,1",
  type: "hash",
  until: "x",
  cmdline: "quiet",
  exec: "true",
  timeout: "100",
  module: "x",
  ref: "x",
  snapshot: "line=x"
}
const valueOf = ({ name, value }: OptionNode): string =>
  VALUES[name] ?? (value === "N" ? "1" : /^[a-z-]+(\|[a-z-]+)+$/.test(value ?? "") ? value!.split("|")[0] : "./missing")

/** What commands take as arguments; one that is not listed takes none. */
const ARGUMENTS: Readonly<Record<string, ReadonlyArray<string>>> = {
  "maps show": ["nosuch"],
  "maps write": ["=1"],
  "progs show": ["nosuch"],
  "diff": ["./missing", "./missing"],
  "sched diff": ["./missing", "./missing"],
  "show": ["./missing"],
  "btf show": ["rq"],
  "btf diff": ["./missing", "./missing"],
  "kernel show": ["./missing"],
  "kernel fetch": ["debian:6.12-cloud"],
  "kernel build": ["9.99"],
  "replay": ["./missing"]
}

/** Options that help lets people choose among: of each list one at a time. */
const CHOICES: ReadonlyArray<ReadonlyArray<string>> = [
  ["kernel", "image", "qemu", "live"],
  ["kernel", "btf"],
  ["json", "ndjson"],
  ["exec", "exec-file"],
  ["cpus", "topology"],
  ["any", "create", "existing", "delete"],
  ["git", "source", "tarball"],
  ["keep", "corrupt-only", "all"],
  ["config", "json"]
]

/** Options in place of a command's arguments. */
const IN_PLACE = ["--source", "--git", "--tarball", "--delete"]

/** Options that go with another one, as their help says: with the first here that the command has. */
const NEEDS: ReadonlyArray<readonly [needs: string, options: ReadonlyArray<string>]> = [
  ["qemu", ["racy"]],
  [
    "kernel",
    [
      ..."include exec exec-file engine cpus topology memory-mib disk share module kaslr cmdline console".split(" "),
      ..."racy until on-failure dmesg".split(" ")
    ]
  ],
  ["image", ["vmlinux"]],
  ["live", ["any", "create", "existing", "delete"]],
  ["map", ["key"]],
  ["btf", ["base"]],
  ["git", ["ref"]],
  ["json", ["out"]],
  ["scheduler", ["ops", "expect", "scheduler-arg"]],
  ["snapshots", ["snapshot"]],
  ["snapshot", ["snapshots"]]
]

/** The options that one command line can have: as many as go together, `first` among them. */
const together = (node: CommandNode, first: OptionNode): ReadonlyArray<OptionNode> => {
  const has = new Map(node.options.map((option) => [option.name, option]))
  const chosen = new Set<string>()
  const fits = (name: string): boolean =>
    CHOICES.every((choice) => !choice.includes(name) || choice.every((other) => other === name || !chosen.has(other)))
  const add = (name: string): void => {
    const needed = NEEDS.filter(([needs, options]) => options.includes(name) && has.has(needs)).map(([needs]) => needs)
      .slice(0, 1)
    if (chosen.has(name) || !fits(name) || !needed.every((other) => chosen.has(other) || fits(other))) return
    chosen.add(name)
    needed.forEach(add)
  }
  // what a command cannot do without: whose map, kernel or file it is
  const always = ["out", "map", "key", "ref"].filter((name) => has.has(name))
  for (const name of [first.name, ...always, "kernel", ...has.keys()]) if (has.has(name)) add(name)
  return [...chosen].map((name) => has.get(name)!)
}

describe("every option that a command's help shows is one that it takes:", () => {
  for (const [name, node] of leaves(commandTree(command.descriptor), [])) {
    it.scopedLive(`ktstr ${name}`, () =>
      Effect.gen(function*() {
        const { cwd, env } = yield* place
        const left = new Map(node.options.map((option) => [option.name, option]))
        // `--schema` asks for nothing else, so that what stands beside it is not looked at
        left.delete("schema")
        const shown = { ...node, options: [...left.values()] }
        for (let [first] = left.values(); first !== undefined; [first] = left.values()) {
          const options = together(shown, first)
          for (const option of options) left.delete(option.name)
          const words = options.flatMap((option) => [
            `--${option.name}`,
            ...(option.value === null ? [] : [valueOf(option)])
          ])
          const line = [
            ...name.split(" "),
            ...words,
            ...(words.some((word) => IN_PLACE.includes(word))
              ? []
              : ARGUMENTS[name] ?? [])
          ]
          // no cache: a command that wants a kernel of it ends there
          const ran = yield* ktstr(line, { cwd, env: { ...env, KTSTR_CACHE_DIR: "/dev/null/none" } })
          assert.notInclude([2, 70], ran.code, `${line.join(" ")}\n${ran.stderr}`)
        }
      }), 120_000)
  }
})
