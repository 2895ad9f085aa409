/** The part of JSON Schema (draft 7) that Effect's `JSONSchema` writes for our documents. */
interface JsonSchema {
  readonly $ref?: string
  readonly type?: string
  readonly enum?: ReadonlyArray<unknown>
  readonly required?: ReadonlyArray<string>
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: boolean
  readonly items?: JsonSchema
  readonly anyOf?: ReadonlyArray<JsonSchema>
  readonly $defs?: Readonly<Record<string, JsonSchema>>
}

const KNOWN = ["$ref", "type", "enum", "required", "properties", "additionalProperties", "items", "anyOf"]
const ANNOTATIONS = ["$schema", "$defs", "$id", "title", "description"]

/** Where and how `value` breaks `root`; nothing when it is valid. Throws at a keyword that it does not know. */
export const violations = (root: JsonSchema, value: unknown): ReadonlyArray<string> => {
  const check = (schema: JsonSchema, value: unknown, at: string): ReadonlyArray<string> => {
    const unknown = Object.keys(schema).find((keyword) => ![...KNOWN, ...ANNOTATIONS].includes(keyword))
    if (unknown !== undefined) throw new Error(`this validator does not know the keyword ${unknown}`)
    const { $ref, additionalProperties = true, anyOf, enum: values, items, properties = {}, required = [], type } =
      schema
    const wrong: Array<string> = []
    if ($ref !== undefined) wrong.push(...check(definition(root, $ref), value, at))
    if (type !== undefined && !isOfType(value, type)) wrong.push(`${at}: no ${type}`)
    if (values?.includes(value) === false) wrong.push(`${at}: not in the enum`)
    if (anyOf?.every((each) => check(each, value, at).length > 0) === true) wrong.push(`${at}: none of the forms`)
    if (items !== undefined && Array.isArray(value)) {
      for (const [index, each] of value.entries()) wrong.push(...check(items, each, `${at}[${index}]`))
    }
    if (isObject(value)) {
      for (const name of required) if (!(name in value)) wrong.push(`${at}: lacks ${name}`)
      for (const [name, each] of Object.entries(value)) {
        if (name in properties) wrong.push(...check(properties[name], each, `${at}.${name}`))
        else if (!additionalProperties) wrong.push(`${at}: ${name} is too much`)
      }
    }
    return wrong
  }
  return check(root, value, "$")
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const isOfType = (value: unknown, type: string): boolean => {
  switch (type) {
    case "integer":
      return Number.isInteger(value)
    case "null":
      return value === null
    case "array":
      return Array.isArray(value)
    case "object":
      return isObject(value)
    default:
      return typeof value === type
  }
}

const definition = (root: JsonSchema, reference: string): JsonSchema => {
  const found = root.$defs?.[reference.replace("#/$defs/", "")]
  if (found === undefined) throw new Error(`${reference} leads nowhere`)
  return found
}
