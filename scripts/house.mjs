// Counts what the rules of CONTRIBUTING.md can be counted by, and fails with a line for each breach:
// folders of src with more than 16 files, functions over 100 lines, phrases that a native reader stumbles on in strings
// and docs, and what is made from scripts/rooms.mjs and no longer agrees with it.
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import ts from "typescript"
import { roomsFaults } from "./rooms.mjs"

const FILES_LIMIT = 16
const LINES_LIMIT = 100

/** Phrases in text that users see: string and template literals of src. */
const PHRASES = [
  [/(?<!there )\bis no (?!longer\b|more than\b|way\b|such\b)[a-z]/i, "\"is no X\": say \"is not a X\""],
  [/(?<!there )\bare no (?!longer\b|more than\b|such\b)[a-z]/i, "\"are no X\": say \"are not X\""],
  [/\bmend(s|ed|ing)?\b/i, "\"mend\": say \"fix\""],
  [/\bso many\b/i, "\"so many\": say \"N\", \"at most N\""],
  [/\bwish(es|ed)?\b/i, "\"wish\": say \"request\""]
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

for (const file of files.filter((name) => name.endsWith(".ts"))) {
  const text = readFileSync(file, "utf8")
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const lineOf = (position) => source.getLineAndCharacterOfPosition(position).line + 1
  const checkPhrases = (words, position) => {
    for (const [pattern, instead] of PHRASES) {
      if (pattern.test(words)) {
        faults.push(`${file}:${lineOf(position)}: ${instead}: ${JSON.stringify(words)}`)
      }
    }
  }
  const visit = (node) => {
    if (ts.isFunctionLike(node) && node.body !== undefined) {
      const lines = lineOf(node.end) - lineOf(node.getStart()) + 1
      if (lines > LINES_LIMIT) {
        faults.push(
          `${file}:${lineOf(node.getStart())}: ${nameOf(node)} has ${lines} lines, the limit is ${LINES_LIMIT}`
        )
      }
    }
    if (ts.isStringLiteralLike(node) || ts.isTemplateHead(node) || ts.isTemplateMiddleOrTemplateTail(node)) {
      checkPhrases(node.text, node.getStart())
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  for (const [comment] of text.matchAll(/\/\*\*[\s\S]*?\*\//g)) {
    if (/^\/\*\*[\s*]*What /.test(comment)) {
      const at = text.indexOf(comment)
      faults.push(`${file}:${lineOf(at)}: a doc opens with "What": begin with a noun phrase`)
    }
  }
}
for (const text of faults) console.error(text)
console.log(`house: ${perFolder.size} folders, ${files.length} files, ${faults.length} faults`)
process.exitCode = faults.length === 0 ? 0 : 1
