// Fails for each public export without a sentence of documentation, @since and @category. Public is what the subpaths of
// package.json lead to: their index files are lists of names, and this follows them to the declarations.
import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import ts from "typescript"

const parsed = new Map()
const parse = (file) => {
  if (!parsed.has(file)) {
    parsed.set(file, ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.Latest, true))
  }
  return parsed.get(file)
}

const isExported = (statement) => statement.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) ?? false

const namesOf = (statement) =>
  ts.isVariableStatement(statement)
    ? statement.declarationList.declarations.map(({ name }) => name.getText())
    : statement.name === undefined
    ? []
    : [statement.name.text]

/** Declarations that `file` exports, by name; a re-export is followed to where its name is declared. */
const declarationsOf = (file, wanted = undefined) => {
  const found = []
  for (const statement of parse(file).statements) {
    if (ts.isExportDeclaration(statement)) {
      const target = statement.moduleSpecifier === undefined
        ? undefined
        : join(dirname(file), statement.moduleSpecifier.text)
      const clause = statement.exportClause
      if (clause === undefined || ts.isNamespaceExport(clause)) {
        if (wanted === undefined && target !== undefined) found.push(...declarationsOf(target))
        continue
      }
      for (const { name, propertyName } of clause.elements) {
        if (wanted !== undefined && name.text !== wanted) continue
        const original = (propertyName ?? name).text
        found.push(...(target === undefined ? imported(file, original) : declarationsOf(target, original)))
      }
    } else if (isExported(statement)) {
      for (const name of namesOf(statement)) {
        if (wanted === undefined || wanted === name) found.push({ file, name, statement })
      }
    }
  }
  return found
}

/** Declarations of a name that `file` imports, or declares without exporting it there. */
const imported = (file, name) => {
  for (const statement of parse(file).statements) {
    if (!ts.isImportDeclaration(statement) || !statement.moduleSpecifier.text.startsWith(".")) continue
    const bindings = statement.importClause?.namedBindings
    if (bindings === undefined || !ts.isNamedImports(bindings)) continue
    for (const element of bindings.elements) {
      if (element.name.text === name) {
        return declarationsOf(
          join(dirname(file), statement.moduleSpecifier.text),
          (element.propertyName ?? element.name).text
        )
      }
    }
  }
  return []
}

/** The documentation comment right before a statement, as text, or "". */
export const docOf = (statement) => {
  const text = statement.getSourceFile().text
  const ranges = ts.getLeadingCommentRanges(text, statement.getFullStart()) ?? []
  const last = ranges.map(({ end, pos }) => text.slice(pos, end)).filter((comment) => comment.startsWith("/**")).at(-1)
  return last ?? ""
}

/** Every public declaration once. */
export const publicExports = () => {
  const { exports } = JSON.parse(readFileSync("package.json", "utf8"))
  const found = new Map()
  for (const target of Object.values(exports)) {
    if (typeof target === "string") continue
    const entry = target.default.replace("./dist/", "src/").replace(/\.js$/, ".ts")
    for (const declaration of declarationsOf(entry)) {
      found.set(`${declaration.file}:${declaration.statement.pos}`, declaration)
    }
  }
  return [...found.values()]
}

if (process.argv[1] === import.meta.filename) {
  const faults = []
  const all = publicExports()
  for (const { file, name, statement } of all) {
    const doc = docOf(statement)
    const line = parse(file).getLineAndCharacterOfPosition(statement.getStart()).line + 1
    const missing = []
    if (!/[\p{L}`]/u.test(doc.replaceAll(/@(since|category).*$/gm, ""))) missing.push("a sentence of documentation")
    if (!/@since \d+\.\d+\.\d+/.test(doc)) missing.push("@since")
    if (!/@category \w/.test(doc)) missing.push("@category")
    if (missing.length > 0) faults.push(`${file}:${line}: ${name} has no ${missing.join(", no ")}`)
  }
  for (const fault of faults) console.error(fault)
  console.log(`exports: ${all.length} public, ${faults.length} faults`)
  process.exitCode = faults.length === 0 && all.length > 0 ? 0 : 1
}
