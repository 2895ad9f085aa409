/** A JSON Schema's keywords that Effect writes for our documents; another one makes `violations` throw. */
interface Schema {
  readonly [keyword: string]: unknown
}

const ANNOTATIONS = ["$schema", "$defs", "$id", "title", "description", "examples", "default"]

/** Where and how `value` breaks `schema` (draft 7, the part that Effect's `JSONSchema` uses); none when it is valid. */
export const violations = (root: Schema, value: unknown): ReadonlyArray<string> => {
  const check = (schema: Schema, value: unknown, at: string): ReadonlyArray<string> =>
    Object.entries(schema).flatMap(([keyword, wanted]) => {
      const rule = rules[keyword]
      if (rule !== undefined) return rule(wanted, value, at, schema)
      if (ANNOTATIONS.includes(keyword)) return []
      throw new Error(`this validator does not know the keyword ${keyword}`)
    })
  const entries = (value: unknown): ReadonlyArray<readonly [string, unknown]> =>
    isObject(value) ? Object.entries(value) : []
  const rules: Record<string, (wanted: any, value: unknown, at: string, schema: Schema) => ReadonlyArray<string>> = {
    $ref: (wanted: string, value, at) => check(resolve(root, wanted), value, at),
    type: (wanted, value, at) => typeOf(value, wanted) ? [] : [`${at}: no ${String(wanted)}`],
    enum: (wanted: ReadonlyArray<unknown>, value, at) => wanted.includes(value) ? [] : [`${at}: not in the enum`],
    required: (wanted: ReadonlyArray<string>, value, at) =>
      wanted.filter((name) => isObject(value) && !(name in value)).map((name) => `${at}: lacks ${name}`),
    properties: (wanted: Record<string, Schema>, value, at) =>
      entries(value).flatMap(([name, each]) => name in wanted ? check(wanted[name], each, `${at}.${name}`) : []),
    additionalProperties: (wanted: boolean, value, at, { properties }) =>
      wanted ?
        [] :
        entries(value).flatMap(([name]) =>
          isObject(properties) && name in properties ? [] : [`${at}: ${name} is too much`]
        ),
    items: (wanted: Schema, value, at) =>
      Array.isArray(value) ? value.flatMap((each, index) => check(wanted, each, `${at}[${index}]`)) : [],
    anyOf: (wanted: ReadonlyArray<Schema>, value, at) =>
      wanted.some((each) => check(each, value, at).length === 0) ? [] : [`${at}: none of ${wanted.length} forms`]
  }
  return check(root, value, "$")
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const typeOf = (value: unknown, wanted: unknown): boolean =>
  wanted === "integer"
    ? Number.isInteger(value)
    : wanted === "null"
    ? value === null
    : wanted === "array"
    ? Array.isArray(value)
    : wanted === "object"
    ? isObject(value)
    : typeof value === wanted

const resolve = (root: Schema, reference: string): Schema => {
  let found: unknown = root
  for (const name of reference.replace(/^#\//, "").split("/")) found = isObject(found) ? found[name] : undefined
  if (!isObject(found)) throw new Error(`${reference} leads nowhere`)
  return found
}
