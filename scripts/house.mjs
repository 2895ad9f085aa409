// Counts what the rules of CONTRIBUTING.md can be counted by, and fails with a line for each breach:
// folders of src with more than 16 files, functions over 100 lines, phrases that a native reader stumbles on in strings,
// comments and the Markdown files, ideas that are defined twice, and files that no longer agree with scripts/rooms.mjs.
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import ts from "typescript"
import { roomsFaults } from "./rooms.mjs"

const FILES_LIMIT = 16
const LINES_LIMIT = 100

/** Phrases in text that people read: strings and comments of src, and the Markdown files. */
const PHRASES = [
  [
    /(?<!\bthere )\b(is|are|was|were) no (?!longer\b|more than\b|way\b|such\b|help\b)[a-z]/i,
    "\"is no X\": say \"is not a X\""
  ],
  [/\bmend(s|ed|ing)?\b/i, "\"mend\": say \"fix\""],
  [/\bso many\b/i, "\"so many\": say \"N\", \"at most N\""],
  [/\bwish(es|ed)?\b/i, "\"wish\": say \"request\""],
  [/\bthere (is|are) no such\b/i, "\"there is no such X\": say \"no such X\""]
]

/**
 * Ideas that have one home each: definitions of these names anywhere else are a second one. A u64 is read by physical
 * address, by virtual address, with its reason, and as a struct's field; each of these stands on the one before.
 */
const HOMES = {
  u64: [
    "memory/GuestMemory.ts",
    "memory/KernelSpace.ts",
    "memory/structs/StructReader.ts",
    "btf/KernelStruct.ts",
    "kvm/native/boot/AcpiTable.ts" // writes one
  ],
  cString: ["core/CString.ts"],
  textAt: ["core/CString.ts"],
  textIn: ["core/CString.ts"],
  listNodes: ["memory/structs/ListHead.ts"],
  HashWalk: ["bpf/guest/walks/HashWalk.ts"],
  Rhashtable: ["memory/structs/Rhashtable.ts"],
  KernelStruct: ["btf/KernelStruct.ts"],
  StructReader: ["memory/structs/StructReader.ts"],
  shellQuote: ["core/process/ShellQuote.ts"],
  quoted: ["core/process/ShellQuote.ts"]
}

/** Tags of a `PlatformError`, which is one class with a reason in Effect 4. */
const PLATFORM_TAGS = ["SystemError", "BadArgument"]
const PLATFORM_HOME = "core/Errors.ts"

/**
 * An open file of Effect 4 has no `fd`: who needs a descriptor opens the path by `Native`. These have descriptors of their
 * own: of maps (bpf(2)), and of a VM's disks and shares.
 */
const DESCRIPTOR_HOMES = [
  "bpf/live/",
  "kvm/native/virtio/VirtioBlock.ts",
  "kvm/qemu/QemuProcess.ts",
  "kvm/qemu/ShareServer.ts"
]

/** The idiom of NUL-terminated text. Names in ELF and tokens of kallsyms must end inside their tables: they check that. */
const NUL_SEARCH = /\bindexOf\(0[,)]/
const NUL_HOMES = [
  "core/CString.ts",
  "core/image/Elf.ts",
  "memory/Vmlinux.ts", // keeps the bytes with their NUL
  "memory/kallsyms/FindKallsyms.ts",
  "memory/kallsyms/SymbolNames.ts"
]

const files = readdirSync("src", { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
  .sort()

const faults = roomsFaults()

const perFolder = new Map()
for (const file of files) {
  const folder = file.slice(0, file.lastIndexOf("/"))
  perFolder.set(folder, (perFolder.get(folder) ?? 0) + 1)
}
for (const [folder, count] of perFolder) {
  if (count > FILES_LIMIT) faults.push(`${folder}: ${count} files, the limit is ${FILES_LIMIT}: split it by topic`)
}

/** What a function is called where it is read: its own name, or that of what it is given to. */
const nameOf = (node) => {
  for (let at = node; at !== undefined && !ts.isSourceFile(at); at = at.parent) {
    const name = at.name ?? (ts.isPropertyAssignment(at) ? at.name : undefined)
    if (name !== undefined) return name.getText()
  }
  return "(anonymous)"
}

const checkPhrases = (where, words) => {
  for (const [pattern, instead] of PHRASES) {
    if (pattern.test(words)) faults.push(`${where}: ${instead}: ${JSON.stringify(words)}`)
  }
}

const checkDefinition = (where, file, name) => {
  if (Object.hasOwn(HOMES, name) && !HOMES[name].includes(file)) {
    faults.push(`${where}: ${name} is defined here too: use the one in ${HOMES[name].join(", ")}`)
  }
}

const nameOfDeclaration = (node) => {
  if (ts.isVariableDeclaration(node) && node.initializer !== undefined) {
    return ts.isFunctionLike(node.initializer) && ts.isIdentifier(node.name) ? node.name.text : undefined
  }
  const isDefinition = ts.isClassDeclaration(node) ||
    ((ts.isFunctionDeclaration(node) || ts.isMethodDeclaration(node)) && node.body !== undefined)
  return isDefinition ? node.name?.getText() : undefined
}

for (const path of files.filter((name) => name.endsWith(".ts"))) {
  const text = readFileSync(path, "utf8")
  const file = path.slice("src/".length)
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
  const at = (position) => `${path}:${source.getLineAndCharacterOfPosition(position).line + 1}`
  const lineOf = (position) => source.getLineAndCharacterOfPosition(position).line
  const visit = (node) => {
    if (ts.isFunctionLike(node) && node.body !== undefined) {
      const lines = lineOf(node.end) - lineOf(node.getStart()) + 1
      if (lines > LINES_LIMIT) {
        faults.push(`${at(node.getStart())}: ${nameOf(node)} has ${lines} lines, the limit is ${LINES_LIMIT}`)
      }
    }
    if (ts.isStringLiteralLike(node) || ts.isTemplateHead(node) || ts.isTemplateMiddleOrTemplateTail(node)) {
      checkPhrases(at(node.getStart()), node.text)
    }
    const isTag = (ts.isStringLiteralLike(node) || ts.isIdentifier(node)) && PLATFORM_TAGS.includes(node.text)
    if (isTag && file !== PLATFORM_HOME) {
      faults.push(
        `${at(node.getStart())}: ${node.text}: use isPlatformError, reasonOf or platformText of src/${PLATFORM_HOME}`
      )
    }
    const isDescriptor = ts.isPropertyAccessExpression(node) && node.name.text === "fd"
    if (isDescriptor && !DESCRIPTOR_HOMES.some((home) => file.startsWith(home))) {
      faults.push(`${at(node.getStart())}: ${node.getText()}: open the path by \`Native.open\``)
    }
    const name = nameOfDeclaration(node)
    if (name !== undefined) checkDefinition(at(node.getStart()), file, name)
    ts.forEachChild(node, visit)
  }
  visit(source)
  for (const { 0: comment, index } of text.matchAll(/\/\*\*[\s\S]*?\*\/|(?<=^|\s)\/\/ .*/g)) {
    checkPhrases(at(index), comment.replaceAll(/\s*\n\s*\* ?/g, " "))
    if (/^\/\*\*[\s*]*What /.test(comment)) {
      faults.push(`${at(index)}: a doc opens with "What": begin with a noun phrase`)
    }
  }
  const search = NUL_SEARCH.exec(text)
  if (search !== null && !NUL_HOMES.includes(file)) {
    faults.push(`${at(search.index)}: a search for NUL: text that ends with one is read by cString (core/CString.ts)`)
  }
}

for (const file of ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]) {
  for (const [index, line] of readFileSync(file, "utf8").split("\n").entries()) {
    checkPhrases(`${file}:${index + 1}`, line)
  }
}

for (const text of faults) console.error(text)
console.log(`house: ${perFolder.size} folders, ${files.length} files, ${faults.length} faults`)
process.exitCode = faults.length === 0 ? 0 : 1
