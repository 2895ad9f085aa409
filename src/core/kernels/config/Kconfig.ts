import * as Either from "effect/Either"
import * as Schema from "effect/Schema"

/**
 * A line of a kconfig fragment that is neither an option nor a comment. `line` counts from 1.
 *
 * @since 0.1.0
 * @category errors
 */
export class KconfigInvalid extends Schema.TaggedError<KconfigInvalid>("ktstr/KconfigInvalid")("KconfigInvalid", {
  line: Schema.Int,
  text: Schema.String
}) {
  override get message() {
    return `kconfig fragment, line ${this.line}: ${JSON.stringify(this.text)} is not an option; write ` +
      "CONFIG_NAME=y, m, n, a number or a \"text\", or # CONFIG_NAME is not set"
  }
}

// scripts/kconfig/confdata.c conf_read_simple and getline_stripped, v6.12: no blank before an option, one after the #
const SET = /^(CONFIG_[A-Za-z0-9_]+)=(.*)$/
const NOT_SET = /^# (CONFIG_[A-Za-z0-9_]+) is not set$/
const VALUE = /^([ymn]|-?\d+|0[xX][0-9a-fA-F]+|"(?:[^"\\]|\\.)*")\s*(?:#.*)?$/

const linesOf = (text: string): ReadonlyArray<string> => text.split(/\r*\n/)

/**
 * The values that a fragment sets, by option name: `y`, `m`, `n`, a number, or a text in its quotes. An option that is
 * not set is `n`; of one that is given twice the last value counts, as it does for kbuild.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseFragment = (text: string): Either.Either<ReadonlyMap<string, string>, KconfigInvalid> => {
  const options = new Map<string, string>()
  for (const [index, raw] of linesOf(text).entries()) {
    const line = raw.trimEnd()
    const notSet = NOT_SET.exec(line)
    if (notSet !== null) {
      options.set(notSet[1], "n")
      continue
    }
    if (line === "" || line.startsWith("#")) continue
    const set = SET.exec(line)
    const value = set === null ? null : VALUE.exec(set[2])
    if (set === null || value === null) return Either.left(new KconfigInvalid({ line: index + 1, text: line }))
    options.set(set[1], value[1])
  }
  return Either.right(options)
}

/**
 * The options that a `.config` sets, by name, with their values as they are written; those that are off are not in it.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseConfig = (text: string): ReadonlyMap<string, string> => {
  const options = new Map<string, string>()
  for (const line of linesOf(text)) {
    const [, name, value] = SET.exec(line) ?? []
    if (name !== undefined && value !== "n") options.set(name, value)
  }
  return options
}

/**
 * An option that did not become what was asked for; `got` is `n` where it is off or this kernel does not know it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Unmet {
  readonly option: string
  readonly wanted: string
  readonly got: string
}

/**
 * The options of a fragment that a configuration did not grant: kconfig silently changes one whose dependencies are not
 * met, and drops one that it does not know. Built in, where a module was asked for, counts as granted.
 *
 * @since 0.1.0
 * @category reading
 */
export const unmet = (
  fragment: ReadonlyMap<string, string>,
  config: ReadonlyMap<string, string>
): ReadonlyArray<Unmet> =>
  [...fragment].flatMap(([option, wanted]) => {
    const got = config.get(option) ?? "n"
    return got === wanted || (wanted === "m" && got === "y") ? [] : [{ option, wanted, got }]
  })
