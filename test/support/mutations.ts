import { setImmediate } from "node:timers/promises"
import { type Dice, random } from "./damage.ts"

/** How many mutations of each input are tried: few in each run, and as many as are asked for. */
export const MUTATIONS = Number(process.env["KTSTR_MUTATIONS"] ?? 200)
/** The first of their seeds: where an earlier run ended. */
export const FIRST_SEED = Number(process.env["KTSTR_MUTATIONS_FROM"] ?? 0)
/** A test of so many may take this long, in ms; it has no other use for a clock. */
export const MUTATIONS_TIMEOUT = 120_000 + MUTATIONS * 100

/** A number of the input, in bytes: what a mutation changes as a whole. */
export interface Word {
  readonly at: number
  readonly width: 1 | 2 | 4 | 8
}

/** Words side by side from `at` on. */
export const wordsFrom = (at: number, ...widths: ReadonlyArray<Word["width"]>): ReadonlyArray<Word> => {
  let next = at
  return widths.map((width) => {
    const word = { at: next, width }
    next += width
    return word
  })
}

const LIKELY = [
  0n,
  1n,
  2n,
  3n,
  7n,
  8n,
  0x3fn,
  0x40n,
  0xffn,
  0x1000n,
  0xffffn,
  0x1_0000n,
  0xff_ffffn,
  0x8000_0000n,
  -1n,
  -2n
]
const EDGES = [31n, 32n, 40n, 46n, 47n, 52n, 53n, 63n]

/** One to four changes of `golden` that know where its numbers are, and at times a cut or any other byte. */
export const mutate = (golden: Uint8Array, words: ReadonlyArray<Word>, pick: Dice): Uint8Array => {
  const bytes = Uint8Array.from(golden)
  const view = new DataView(bytes.buffer)
  const get = ({ at, width }: Word): bigint => {
    let value = 0n
    for (let i = width - 1; i >= 0; i--) value = value << 8n | BigInt(view.getUint8(at + i))
    return value
  }
  const set = ({ at, width }: Word, value: bigint): void => {
    for (let i = 0; i < width; i++) view.setUint8(at + i, Number(value >> BigInt(8 * i) & 0xffn))
  }
  let end = bytes.length
  for (let changes = 1 + pick(4); changes > 0; changes--) {
    const word = words[pick(words.length)]
    switch (pick(8)) {
      case 0:
        set(word, LIKELY[pick(LIKELY.length)])
        break
      case 1:
        set(word, (1n << EDGES[pick(EDGES.length)]) - BigInt(pick(2)))
        break
      case 2:
        set(word, get(word) ^ 1n << BigInt(pick(word.width * 8)))
        break
      case 3: // what another number says
        set(word, get(words[pick(words.length)]))
        break
      case 4:
        set(word, get(word) + BigInt(pick(3) - 1) * (1n << BigInt(pick(14))))
        break
      case 5: // some of the input over another part of it
        bytes.copyWithin(word.at, words[pick(words.length)].at, word.at + [8, 56, 64][pick(3)])
        break
      case 6:
        bytes[pick(bytes.length)] = pick(256)
        break
      default:
        if (pick(4) === 0) end = pick(bytes.length + 1)
        else set(word, BigInt(bytes.length) - BigInt(pick(128)))
    }
  }
  return bytes.subarray(0, end)
}

/** JSON, or not, to stand for a value or a key. */
const OTHERS = [
  "1e999",
  "-0",
  "9007199254740993",
  "1.5",
  "-1",
  "null",
  "true",
  "[]",
  "{}",
  "\"\\u001b[2J\\u202e\"",
  "\"\\ud800\"",
  "\"__proto__\"",
  "\"constructor\"",
  "\"toString\"",
  "{\"__proto__\":{\"polluted\":1},\"constructor\":{\"prototype\":{\"polluted\":1}}}",
  `${"[".repeat(300)}${"]".repeat(300)}`,
  `${"{\"a\":".repeat(600)}1${"}".repeat(600)}`,
  "\x1b]0;title\x07",
  "\"\"",
  `"${"x".repeat(20_000)}"`
]

/** One to three changes of JSON, or of lines of it: a value, a key or a line is another one, gone, twice there, or the rest is. */
export const mutateJson = (text: string, pick: Dice): string => {
  for (let times = 1 + pick(3); times > 0; times--) {
    const tokens = [...text.matchAll(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|true|false|null|[^\n]*\n/g)]
    if (tokens.length === 0) return text
    const { 0: token, index } = tokens[pick(tokens.length)]
    const other = pick(3) === 0 ? tokens[pick(tokens.length)][0] : OTHERS[pick(OTHERS.length)]
    const [before, after] = [text.slice(0, index), text.slice(index + token.length)]
    switch (pick(6)) {
      case 0:
        text = before + after
        break
      case 1:
        text = before + token + token + after
        break
      case 2:
        text = pick(4) === 0 ? before : before + token + after
        break
      default:
        text = before + other + after
    }
  }
  return text
}

/** Do `one` with each seed's dice; gives how often it said true. A failure names its seed. */
export const tryAll = async (
  one: (pick: Dice, seed: number) => boolean | Promise<boolean>,
  count = MUTATIONS
): Promise<number> => {
  let yes = 0
  for (let seed = FIRST_SEED; seed < FIRST_SEED + count; seed++) {
    if (seed % 16 === 0) await setImmediate() // the test runner's own messages wait for a turn, at most a minute
    try {
      if (await one(random(seed), seed)) yes++
    } catch (error) {
      throw new Error(`seed ${seed} fails: make a test of its input`, { cause: error })
    }
  }
  return yes
}

/** The most memory that this process ever had, in MiB. */
export const peakMib = (): number => process.resourceUsage().maxRSS / 1024
