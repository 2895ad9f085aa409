import * as Schema from "effect/Schema"
import { appendFileSync } from "node:fs"
import { EngineMode } from "../engine/EngineMode.ts"

/** The variable by which `ktstr run FILE.test.ts` tells the tests what its command line asks for. */
export const ASKED = "KTSTR_ASKED"

/** The choices of a command line in place of those of the tests; left out, each test says it for itself. */
export const Asked = Schema.parseJson(Schema.Struct({
  kernels: Schema.Array(Schema.String),
  topologies: Schema.Array(Schema.String),
  seed: Schema.optional(Schema.Int),
  seeds: Schema.optional(Schema.Int),
  mode: Schema.optional(Schema.Union(EngineMode, Schema.Literal("auto"))),
  memoryMib: Schema.optional(Schema.Int),
  runsDir: Schema.optional(Schema.String),
  /** A file that gets a line for each test that ran. */
  log: Schema.String
}))
export type Asked = typeof Asked.Type

/** A line of that file: the folder of a run that was kept, or why a test was skipped. */
export const AskedLine = Schema.parseJson(Schema.Union(
  Schema.Struct({ run: Schema.String }),
  Schema.Struct({ skipped: Schema.String, why: Schema.String })
))

/** The choices of the command line that started vitest; undefined: there is none. */
export const askedByCommand = (): Asked | undefined => {
  const text = process.env[ASKED]
  return text === undefined ? undefined : Schema.decodeSync(Asked)(text)
}

/** Tell the command how a test ended. Appends of a line do not mix. */
export const tellCommand = (asked: Asked | undefined, line: typeof AskedLine.Type): void => {
  if (asked !== undefined) appendFileSync(asked.log, `${Schema.encodeSync(AskedLine)(line)}\n`)
}
