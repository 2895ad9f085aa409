import { assert, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Buffer } from "node:buffer"
import { escapeLine } from "../../../src/cli/terminal/escapeControls.ts"
import { Console } from "../../../src/kvm/guest/Console.ts"
import type { Dice } from "../../support/damage.ts"
import { MUTATIONS, MUTATIONS_TIMEOUT, peakMib, tryAll } from "../../support/mutations.ts"

/** More than the peak before, in MiB: streams of 1 MiB at most, of which a console keeps as much again. */
const MOST_GROWTH = 512
/** A longer line is cut, in bytes. */
const LONGEST_LINE = 65536

/** What guests write: a boot, a shell, a panic; and what hostile ones do. */
const PIECES: ReadonlyArray<Buffer> = [
  "[    0.000000] Linux version 6.12.0 (someone@somewhere)\r\n",
  "ktstr: the script ended with status 0\r\n",
  "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n",
  "~ # ",
  "\n",
  "\r",
  "\r\n",
  "\0",
  "\x1b[2J\x1b]0;title\x07",
  "\u009b31m\u202e\u2028\u200b\u{e0041}",
  "ééé 漢字 \u{1f600}"
].map((text) => Buffer.from(text)).concat([
  Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0xf0, 0x9f]),
  Buffer.from([0xed, 0xa0, 0x80])
])

/** A stream of pieces, each once, cut, or over and over. */
const stream = (pick: Dice): Buffer => {
  const parts: Array<Buffer> = []
  for (let count = 1 + pick(12); count > 0; count--) {
    const piece = PIECES[pick(PIECES.length)]
    const times = [1, 1, 1, 2, 100, 3000, 70_000][pick(7)]
    parts.push(
      pick(4) === 0
        ? piece.subarray(pick(piece.length + 1))
        : Buffer.alloc(Math.min(piece.length * times, 2 ** 17), piece)
    )
  }
  return Buffer.concat(parts)
}

/** The lines of a stream, as its documents say: without their ends, and no longer than the longest. */
const linesOf = (bytes: Buffer): ReadonlyArray<string> => {
  const lines: Array<string> = []
  const finish = (line: Buffer): void => {
    let end = line.length
    while (end > 0 && line[end - 1] === 0x0d) end--
    lines.push(line.toString("utf8", 0, end))
  }
  for (let at = 0; at < bytes.length;) {
    const newline = bytes.indexOf(0x0a, at)
    const end = newline < 0 ? bytes.length : newline
    while (end - at > LONGEST_LINE) finish(bytes.subarray(at, at += LONGEST_LINE))
    finish(bytes.subarray(at, end))
    at = end + 1
  }
  return lines
}

describe(`${MUTATIONS} consoles`, () => {
  it(
    "have the same lines however their bytes come, none that a terminal acts on, and keep no more than they may",
    async () => {
      const before = peakMib()
      const lost = await tryAll(async (pick) => {
        const bytes = stream(pick)
        const console = new Console()
        for (let at = 0; at < bytes.length;) {
          const count = 1 + pick(Math.max([1, 80, 4096, 2 ** 17][pick(4)], bytes.length >> 10))
          const piece = Uint8Array.from(bytes.subarray(at, at + count))
          console.push(piece)
          piece.fill(0) // it is the pusher's own
          at += count
        }
        console.end()
        const lines = Chunk.toReadonlyArray(await Effect.runPromise(Stream.runCollect(console.lines)))
        const expected = linesOf(bytes)
        assert.isAtMost(lines.reduce((sum, line) => sum + line.length + 32, 0), 2 * 2 ** 20)
        assert.strictEqual(lines.join("\n"), expected.slice(expected.length - lines.length).join("\n"))
        assert.strictEqual(console.count, expected.length)
        // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
        for (const line of lines.slice(0, 64)) {
          assert.notMatch(escapeLine(line.slice(0, 300)), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
        }
        return lines.length < expected.length
      })
      assert.isBelow(lost, MUTATIONS / 2, "most consoles are kept whole")
      assert.isBelow(peakMib() - before, MOST_GROWTH, "MiB more than before")
    },
    MUTATIONS_TIMEOUT
  )
})
