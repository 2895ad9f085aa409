// The one table of the folders of src: a sentence each, and what each may import. From it come the room rules in
// .oxlintrc.json and the table in CONTRIBUTING.md: `node scripts/rooms.mjs --write` after a change here, and
// `npm run lint` fails where either differs. A folder that is not listed here fails too.
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"

/**
 * `imports` names folders; `room/**` a folder with all below it; `room/File.ts` one file. Its own folder is always allowed.
 * `index.ts` of a folder may import all below it, because it is that folder's list of names.
 * `native`: files that may import koffi, or `core/NativeKoffi.ts`, which loads it.
 * `sourceText`: files that a thread gets as source text, so that they may `import type` and nothing else.
 */
export const ROOMS = {
  "core": {
    holds: "what every stage stands on: addresses, errors, system calls, the cache's directory and its locks",
    imports: [],
    native: ["NativeKoffi.ts"]
  },
  "core/image": {
    holds: "the files that kernels and programs come in: ELF, build ids, the vmlinux inside a bzImage, compression",
    imports: ["core"]
  },
  "core/process": {
    holds: "the host's programs: found on PATH, run to their end, and words quoted for a shell",
    imports: ["core"]
  },
  "core/kernels": {
    holds: "kernel ids, and the resolver that makes files of them",
    imports: [
      "core",
      "core/image",
      "core/process",
      "core/kernels/cache",
      "core/kernels/config",
      "core/kernels/debian"
    ]
  },
  "core/kernels/debian": {
    holds: "Debian's suites and their kernel packages, through a private apt",
    imports: ["core", "core/image", "core/process", "core/kernels/cache"]
  },
  "core/kernels/build": {
    holds: "kernels compiled from a source tree",
    imports: ["core", "core/image", "core/process", "core/kernels", "core/kernels/cache", "core/kernels/config"]
  },
  "core/kernels/cache": {
    holds: "the kernel cache's entries and their metadata",
    imports: ["core", "core/kernels/config"]
  },
  "core/kernels/config": {
    holds: "kernel configurations: parsing, merging, what our tests ask for",
    imports: ["core"]
  },
  "btf": { holds: "BTF: its format, sidecar files, layouts (struct, field, offset)", imports: ["core", "core/image"] },
  "btf/render": { holds: "values as trees, text and JSON, and back to bytes", imports: ["core", "btf"] },
  "btf/c": { holds: "types as C declarations, struct layouts with holes, differences", imports: ["core", "btf"] },
  "btf/offsets": {
    holds: "the list of offset groups",
    imports: ["core", "btf", "btf/offsets/bpf", "btf/offsets/sched"]
  },
  "btf/offsets/bpf": { holds: "offset groups of BPF structs", imports: ["core", "btf"] },
  "btf/offsets/sched": { holds: "offset groups of scheduler structs", imports: ["core", "btf"] },
  "memory": {
    holds: "guest-physical memory, memory images, page tables, VMCOREINFO, `GuestKernel`",
    imports: ["core", "core/image", "btf", "memory/arch", "memory/kallsyms", "memory/evidence", "memory/cores"]
  },
  "memory/arch": {
    holds: "what differs between x86-64 and arm64 in memory: page tables, and how a kernel says where they are",
    imports: ["core", "memory"]
  },
  "memory/cores": {
    holds:
      "kernel cores: ELF ones written and read, kdump-compressed, flattened and /proc/kcore read; memory that is read a page at a time",
    imports: ["core", "core/image", "memory", "memory/arch"]
  },
  "memory/kallsyms": {
    holds: "the kernel's symbol table, found and decoded in memory",
    imports: ["core", "btf", "memory"]
  },
  "memory/evidence": {
    holds:
      "symbols of data that a kernel's table lacks: by its exports, and by its code and what is at the addresses in it",
    imports: ["core", "btf", "memory", "memory/structs"]
  },
  "memory/structs": {
    holds: "the containers that every subsystem reads through: struct reader, lists, trees, xarrays, per-CPU",
    imports: ["core", "btf", "btf/offsets", "memory"]
  },
  "host": {
    holds: "the running kernel through its files: kallsyms, log, CPUs, sched_ext exits",
    imports: ["core", "btf", "memory/Symbols.ts"]
  },
  "sched": {
    holds:
      "run queues, domains, CPU times and what looks wrong in a frozen kernel; all of its scheduler in one reading",
    imports: ["core", "btf/**", "memory/**", "sched/scx", "sched/tasks"]
  },
  "sched/scx": {
    holds: "sched_ext: its schedulers, dispatch queues and exits",
    imports: ["core", "btf/**", "memory/**", "sched", "sched/tasks"]
  },
  "sched/tasks": {
    holds: "tasks, their states, cgroups and stacks",
    imports: ["core", "btf/**", "memory/**", "sched"]
  },
  "bpf": {
    holds: "the contract of every source of maps, programs and links",
    imports: ["core", "btf", "btf/render", "btf/offsets/bpf", "memory", "bpf/values"]
  },
  "bpf/values": {
    holds: "codecs of values that every source shows in the same form",
    imports: ["core", "btf", "btf/render"]
  },
  "bpf/guest": {
    holds: "maps of a frozen kernel",
    imports: [
      "core",
      "btf/**",
      "memory/**",
      "bpf",
      "bpf/values",
      "bpf/guest/walks",
      "bpf/guest/objects",
      "bpf/guest/programs"
    ]
  },
  "bpf/guest/walks": {
    holds: "a walk for each map type",
    imports: ["core", "btf/**", "memory/**", "bpf", "bpf/values", "bpf/guest/objects", "bpf/guest/programs"]
  },
  "bpf/guest/objects": {
    holds: "kernel objects in map values, by name",
    imports: ["core", "btf/**", "memory/**", "bpf", "bpf/values"]
  },
  "bpf/guest/programs": { holds: "loaded programs", imports: ["core", "btf/**", "memory/**", "bpf"] },
  "bpf/guest/links": {
    holds: "links and other attachments",
    imports: ["core", "btf/**", "memory/**", "bpf", "bpf/guest/objects", "bpf/guest/programs"]
  },
  "bpf/guest/write": {
    holds: "writes to maps of a frozen kernel",
    imports: ["core", "btf/**", "memory/**", "bpf", "bpf/guest", "bpf/guest/walks", "bpf/guest/programs"]
  },
  "bpf/live": {
    holds: "maps, programs and links of the running host, by bpf(2)",
    imports: ["core", "btf/**", "memory/Symbols.ts", "host", "bpf", "bpf/values", "bpf/live/calls", "bpf/live/walks"]
  },
  "bpf/live/calls": { holds: "bpf(2): its commands, structs and rights", imports: ["core", "btf", "bpf"] },
  "bpf/live/walks": {
    holds: "a walk for each map type as bpf(2) gives it",
    imports: ["core", "btf/**", "host", "bpf", "bpf/values", "bpf/live/calls"]
  },
  "bpf/thread": {
    holds: "the program of a dump's second thread",
    imports: ["core", "btf", "btf/render", "bpf", "bpf/report", "bpf/guest/walks"]
  },
  "bpf/report": {
    holds: "dump, diff and watch of any source",
    imports: ["core", "core/process", "btf", "btf/render", "bpf"]
  },
  "kvm": {
    holds: "the choice of an engine",
    imports: ["core", "kvm/spec", "kvm/guest", "kvm/probe", "kvm/native", "kvm/qemu"]
  },
  "kvm/spec": {
    holds: "what a VM is: the engine's contract, topology, disks, memory layout",
    imports: ["core", "core/image", "memory/GuestMemory.ts"]
  },
  "kvm/guest": {
    holds: "what runs inside and what it reports: initramfs, init, console",
    imports: ["core", "core/image", "core/process", "memory/GuestMemory.ts", "kvm/spec"]
  },
  "kvm/qemu": {
    holds: "VMs by QEMU, frozen by QMP",
    imports: [
      "core",
      "core/process",
      "memory/GuestMemory.ts",
      "memory/LocateKernel.ts",
      "memory/RawMemory.ts",
      "memory/cores/FilePages.ts",
      "kvm/spec",
      "kvm/guest",
      "kvm/probe"
    ]
  },
  "kvm/probe": {
    holds: "whether /dev/kvm runs guests on this host, found out by running one",
    imports: ["core", "kvm/native/abi", "kvm/native/cpu"]
  },
  "kvm/native": {
    holds: "our own VMM on /dev/kvm",
    imports: [
      "core",
      "memory/GuestMemory.ts",
      "kvm/spec",
      "kvm/guest",
      "kvm/native/abi",
      "kvm/native/boot",
      "kvm/native/cpu",
      "kvm/native/thread",
      "kvm/native/virtio"
    ]
  },
  "kvm/native/abi": {
    holds: "KVM's and virtio's numbers and structs, and the calls",
    imports: ["core", "memory/GuestMemory.ts", "kvm/spec"],
    native: ["Koffi.ts", "KvmNative.ts"],
    sourceText: ["KvmNative.ts"]
  },
  "kvm/native/boot": {
    holds: "what a kernel needs in memory to start: ACPI tables, boot parameters, the image",
    imports: ["core", "memory/GuestMemory.ts", "kvm/spec", "kvm/native/abi", "kvm/native/cpu"]
  },
  "kvm/native/cpu": {
    holds: "a vCPU's state: CPUID, registers, local APIC, clock",
    imports: ["core", "memory/GuestMemory.ts", "kvm/spec", "kvm/native/abi"]
  },
  "kvm/native/thread": {
    holds: "code that runs on vCPU threads",
    imports: ["kvm/spec", "kvm/native/abi"],
    sourceText: ["*.ts"]
  },
  "kvm/native/virtio": {
    holds: "virtio devices",
    imports: ["core", "memory/GuestMemory.ts", "kvm/spec", "kvm/native/abi", "kvm/native/thread"]
  },
  "monitor": {
    holds: "samples of a running guest, rules that they are judged by, and the failure dump",
    imports: [
      "core",
      "btf/**",
      "memory/**",
      "host",
      "sched/**",
      "bpf/**",
      "kvm/spec",
      "kvm/guest/Init.ts",
      "monitor/moments"
    ]
  },
  "monitor/moments": {
    holds: "all of a running guest at an instant: stopped, read, moved on; one at a time or in series",
    imports: ["core", "btf/**", "memory/**", "sched/**", "bpf/**", "kvm/spec", "monitor"]
  },
  "": {
    holds: "`Ktstr.ts`: whole pipelines",
    native: ["Ktstr.ts"], // loaded when `Ktstr.layer` is built: a test sees that importing `ktstr` does not
    imports: [
      "core/**",
      "btf/**",
      "memory/**",
      "host",
      "sched/**",
      "bpf/**",
      "kvm",
      "kvm/spec",
      "kvm/guest",
      "kvm/qemu",
      "monitor/**"
    ]
  },
  "harness": {
    holds: "scenarios, workloads and verdicts in a VM: the list of names",
    imports: ["", "core/**", "btf/**", "memory/**", "host", "sched/**", "bpf/**", "kvm/**", "monitor/**"]
  },
  "harness/engine": {
    holds: "how a run's guest is executed: exact, emulated or by KVM, and the QEMU for it",
    imports: ["core/**", "kvm/**"]
  },
  "harness/agent": {
    holds: "what the guest's agent is told and what it tells: plan, mailbox, records, its initramfs",
    imports: ["core", "memory/GuestMemory.ts", "kvm/guest"]
  },
  "harness/scenario": {
    holds: "workloads as values: their schema, what is wrong with one, and the plan of it",
    imports: ["kvm/spec", "harness/agent"]
  },
  "harness/claim": {
    holds: "what a run yielded, claims about it, and verdicts",
    imports: ["host", "harness/engine", "harness/scenario"]
  },
  "harness/run": {
    holds: "a run: prepared, booted, watched to its end, judged, kept, shown",
    imports: [
      "Ktstr.ts",
      "core/**",
      "host",
      "memory/GuestKernel.ts",
      "memory/GuestMemory.ts",
      "monitor",
      "sched/SchedTime.ts",
      "kvm/**",
      "harness/agent",
      "harness/scenario",
      "harness/claim",
      "harness/engine"
    ]
  },
  "harness/vitest": {
    holds: "runs as tests of vitest",
    imports: [
      "core",
      "core/kernels",
      "kvm/spec",
      "harness",
      "harness/claim",
      "harness/engine",
      "harness/run",
      "harness/scenario"
    ],
    native: ["KtstrIt.ts"]
  },
  "cli": {
    holds: "the command: entry point, table of commands, exit",
    imports: ["**", "../package.json"],
    native: ["**"]
  }
}

const FOLDERS = (() => {
  const found = [""]
  const into = (folder) => {
    for (const entry of readdirSync(join("src", folder), { withFileTypes: true })) {
      if (!entry.isDirectory()) continue
      const child = folder === "" ? entry.name : `${folder}/${entry.name}`
      found.push(child)
      into(child)
    }
  }
  into("")
  return found.sort()
})()

/** Rooms whose row covers every folder below, too. */
const WHOLE = ["cli", "sched", "monitor"]

const rowOf = (folder) => {
  const room = folder.split("/")[0]
  return ROOMS[folder] ?? (WHOLE.includes(room) ? ROOMS[room] : undefined)
}

const LEAN = { name: "effect", message: "import effect/Module: it starts faster" }
const KOFFI = {
  name: "koffi",
  message: "koffi is loaded where scripts/rooms.mjs says: an offline user must not need it"
}

const TYPES_ONLY = {
  regex: ".*",
  allowTypeImports: true,
  message: "a vCPU thread gets this file's code as source text: only import type"
}

/**
 * What Effect 4 changes is looked at in one place each: elsewhere only its types are imported. That nobody looks into a
 * `PlatformError` by its tags, or asks an open file for its descriptor, is in house.mjs.
 */
const ONE_PLACE = [
  {
    group: ["@effect/platform/Error"],
    place: "src/core/Errors.ts",
    instead: "isPlatformError, reasonOf and platformText of src/core/Errors.ts"
  },
  {
    group: ["@effect/platform/Command", "@effect/platform/CommandExecutor"],
    place: "src/core/process/Subprocess.ts",
    instead: "runToEnd and runGroup of src/core/process/Subprocess.ts"
  }
]
const onePlace = (file) =>
  ONE_PLACE.filter(({ place }) => place !== file).map(({ group, instead }) => ({
    group,
    allowTypeImports: true,
    message: `import its types only, and use ${instead}`
  }))

/** The import specifier's beginning that reaches `to` from a file of `from`. */
const reach = (from, to) => {
  const path = relative(join("src", from), join("src", to))
  return path === "" ? "." : path.startsWith("..") ? path : `./${path}`
}

/** What a file of `folder` may import of ours, as exceptions from "nothing": by relative path, never by name alone. */
const allowed = (folder, row, isIndex) => {
  const room = folder.split("/")[0]
  const own = WHOLE.includes(room) ? [`${room}/**`] : []
  const reached = [...own, ...row.imports].map((pattern) => {
    if (pattern === "**") return `${reach(folder, "")}/**`
    if (pattern.endsWith("/**")) return `${reach(folder, pattern.slice(0, -3))}/**`
    return pattern.endsWith(".ts") ? reach(folder, pattern) : `${reach(folder, pattern)}/*.ts`
  })
  return ["./**", "../**", isIndex ? "!./**" : "!./*.ts", ...reached.map((path) => `!${path}`)]
}

const listFiles = (folder) =>
  readdirSync(join("src", folder), { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => entry.name)
    .sort()

const pathOf = (folder) => folder === "" ? "src" : `src/${folder}`

/** What is said when a rule is broken. */
const says = (folder, row) =>
  `${pathOf(folder)} may import ${row.imports.join(", ") || "nothing of ours"} (scripts/rooms.mjs)`

const overrides = () => {
  const made = []
  for (const folder of FOLDERS) {
    const row = rowOf(folder)
    if (row === undefined) continue
    const rule = (isIndex, native, typesOnly = false, file = "") => {
      const group = allowed(folder, row, isIndex)
      if (!native) group.push("**/NativeKoffi.ts") // a later pattern wins over an earlier one
      const patterns = [{ group, message: says(folder, row) }, ...onePlace(file)]
      if (typesOnly) patterns.unshift(TYPES_ONLY) // first: an exception of a pattern ends the search
      return { "no-restricted-imports": ["error", { paths: native ? [LEAN] : [LEAN, KOFFI], patterns }] }
    }
    const native = row.native ?? []
    const everywhere = native.includes("**")
    made.push({ files: [`${pathOf(folder)}/*.ts`], rules: rule(false, everywhere) })
    if (listFiles(folder).includes("index.ts")) {
      made.push({ files: [`${pathOf(folder)}/index.ts`], rules: rule(true, everywhere) })
    }
    for (const { place } of ONE_PLACE) {
      if (dirname(place) === pathOf(folder)) made.push({ files: [place], rules: rule(false, everywhere, false, place) })
    }
    const files = native.filter((name) => name !== "**").map((name) => `${pathOf(folder)}/${name}`)
    if (files.length > 0) made.push({ files, rules: rule(false, true) })
    for (const name of row.sourceText ?? []) {
      made.push({ files: [`${pathOf(folder)}/${name}`], rules: rule(false, native.includes(name), true) })
    }
  }
  return made
}

const OXLINT = {
  "$schema": "./node_modules/oxlint/configuration_schema.json",
  plugins: ["typescript", "import", "unicorn", "oxc"],
  categories: { correctness: "error" },
  ignorePatterns: ["dist", "node_modules"],
  rules: {
    "import/no-cycle": ["error", { ignoreTypes: false }],
    "import/no-default-export": "error",
    "no-console": "error",
    "typescript/no-explicit-any": "error",
    "no-restricted-imports": ["error", { paths: [LEAN] }]
  }
}

/** .oxlintrc.json: an override a line, so that a change of one room is a change of one line. */
const oxlintText = () => {
  const last = [
    { files: ["*.config.ts", "examples/**/vitest.config.ts"], rules: { "import/no-default-export": "off" } },
    { files: ["bench/**", "scripts/**", "examples/**"], rules: { "no-console": "off" } }
  ]
  const base = JSON.stringify(OXLINT, undefined, 2).replace(/\n\}$/, "")
  const lines = [...overrides(), ...last].map((override) => `    ${JSON.stringify(override)}`)
  return `${base},\n  "overrides": [\n${lines.join(",\n")}\n  ]\n}\n`
}

/** The table of CONTRIBUTING.md, between its two marks. */
const tableText = () => {
  const exists = (folder) => FOLDERS.includes(folder)
  const rows = Object.entries(ROOMS).filter(([folder]) => exists(folder))
  const cell = (pattern) => pattern === "" ? "Ktstr.ts" : pattern
  const shown = rows.map(([folder, row]) => {
    const imports = row.imports.filter((pattern) =>
      pattern === "**" || exists(pattern.replace(/\/\*\*$|\/[^/]+\.ts$/, ""))
    )
    const may = imports.length === 0 ? "nothing of ours" : imports.includes("**") ? "all" : imports.map(cell).join(", ")
    return `| \`${pathOf(folder)}\` | ${row.holds} | ${may} |`
  })
  return `${OPEN}\n| folder | holds | may import |\n|---|---|---|\n${shown.join("\n")}\n${CLOSE}`
}

const OPEN = "<!-- rooms: made by scripts/rooms.mjs -->"
const CLOSE = "<!-- /rooms -->"

const contributingText = (now) => {
  const from = now.indexOf(OPEN)
  const to = now.indexOf(CLOSE)
  if (from < 0 || to < from) throw new Error(`CONTRIBUTING.md has no part between ${OPEN} and ${CLOSE}`)
  return now.slice(0, from) + tableText() + now.slice(to + CLOSE.length)
}

/** What is wrong with the files that are made from the table: a line each. */
export const roomsFaults = () => {
  const faults = []
  for (const folder of FOLDERS) {
    if (rowOf(folder) === undefined) faults.push(`src/${folder} is not in the table of scripts/rooms.mjs: add a row`)
  }
  const contributing = readFileSync("CONTRIBUTING.md", "utf8")
  const differs = (name, now, wanted) => {
    if (now !== wanted) faults.push(`${name} differs from scripts/rooms.mjs: run node scripts/rooms.mjs --write`)
  }
  differs(".oxlintrc.json", readFileSync(".oxlintrc.json", "utf8"), oxlintText())
  differs("CONTRIBUTING.md", contributing, contributingText(contributing))
  return faults
}

if (process.argv[1] === import.meta.filename) {
  if (process.argv.includes("--write")) {
    writeFileSync(".oxlintrc.json", oxlintText())
    writeFileSync("CONTRIBUTING.md", contributingText(readFileSync("CONTRIBUTING.md", "utf8")))
  }
  const faults = roomsFaults()
  for (const fault of faults) console.error(fault)
  process.exitCode = faults.length === 0 ? 0 : 1
}
