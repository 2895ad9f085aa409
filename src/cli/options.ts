import * as Args from "@effect/cli/Args"
import * as Options from "@effect/cli/Options"
import { filterWords, mapWord, type OptionWord, outputWords, schemaWord, targetWords } from "./words.ts"

const text = (word: OptionWord & { readonly value: string }) =>
  Options.text(word.name).pipe(Options.withPseudoName(word.value), Options.withDescription(word.about))

// that the number is whole and not too small has been checked before
const number = (word: OptionWord & { readonly least: number }) =>
  Options.integer(word.name).pipe(Options.withDescription(word.about))

const flag = (word: OptionWord) => Options.boolean(word.name).pipe(Options.withDescription(word.about))

/** Which kernel's memory to read: a VM that is booted for it, or an image of one. */
export const target = {
  kernel: Options.optional(text(targetWords.kernel)),
  image: Options.optional(text(targetWords.image)),
  vmlinux: Options.optional(text(targetWords.vmlinux)),
  include: Options.repeated(text(targetWords.include)),
  exec: Options.optional(text(targetWords.exec)),
  execFile: Options.optional(text(targetWords.execFile)),
  engine: Options.choice(targetWords.engine.name, targetWords.engine.value).pipe(
    Options.withDescription(targetWords.engine.about),
    Options.optional
  ),
  cpus: Options.optional(number(targetWords.cpus)),
  memoryMib: Options.optional(number(targetWords.memoryMib)),
  cmdline: Options.optional(text(targetWords.cmdline)),
  console: Options.optional(text(targetWords.console)),
  timeout: Options.optional(number(targetWords.timeout))
}

/** How to print the answer. */
export const output = { json: flag(outputWords.json), ndjson: flag(outputWords.ndjson) }

/** Which maps, and how many entries of each. */
export const filter = {
  map: Options.repeated(text(filterWords.map)),
  type: Options.repeated(text(filterWords.type)),
  limit: Options.optional(number(filterWords.limit))
}

export const schema = flag(schemaWord)

export const mapName = Args.text({ name: mapWord.name }).pipe(Args.withDescription(mapWord.about))
