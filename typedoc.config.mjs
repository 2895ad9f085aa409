import { readFileSync } from "node:fs"

/** Sources behind the subpaths of package.json, so that none is forgotten. */
const entryPoints = Object.values(JSON.parse(readFileSync("package.json", "utf8")).exports)
  .filter((target) => typeof target === "object")
  .map(({ default: built }) => built.replace(/^\.\/dist\/(.*)\.js$/, "src/$1.ts"))

/** @type {Partial<import("typedoc").TypeDocOptions>} */
const options = {
  name: "ktstr",
  entryPoints,
  tsconfig: "tsconfig.build.json",
  out: "docs/api",
  readme: "README.md",
  excludeExternals: true,
  excludeInternal: true,
  disableSources: true,
  validation: { notExported: true, notDocumented: true, invalidLink: true },
  // functions: scripts/exports.mjs asks for each exported one; here the word means members of object literals too
  requiredToBeDocumented: ["Enum", "Variable", "Class", "Interface", "TypeAlias"],
  // what a type is computed from, and aliases of services that hovers show anyway
  intentionallyNotExported: [
    "UPDATE_FLAGS",
    "controlNames",
    "generalNames",
    "Msr",
    "segmentNames",
    "Host",
    "Kind",
    "ValueOfKind"
  ],
  treatValidationWarningsAsErrors: true
}
// oxlint-disable-next-line import/no-default-export -- typedoc loads a configuration's default export
export default options
