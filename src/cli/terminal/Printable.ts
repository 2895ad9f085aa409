import type * as Brand from "effect/Brand"
import { escapeText } from "../../core/EscapeText.ts"
import { COLORED } from "./Color.ts"

/**
 * UTF-8 that neither a terminal nor a reader of JSON takes for anything but text. stdout and files take nothing else, and
 * only this module makes it.
 */
export type Printable = Uint8Array & Brand.Brand<"ktstr/Printable">

/** Our own styles (`Color.ts`), and all that `escapeText` escapes but the tab and the newline. */
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const STYLE_OR_UNPRINTABLE = /\x1b\[(?:1|2|22|31|32|33|39)m|(?![\t\n])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

/** Text or JSON with everything escaped (`\u001b`) that could move the cursor, reorder or hide text; styles if they are on. */
export const escapeOutput = (text: string): string =>
  text.replace(STYLE_OR_UNPRINTABLE, (found) => COLORED && found.length > 2 ? found : escapeText(found))

const encoder = new TextEncoder()

/** Text or JSON, made printable. */
export const printable = (text: string): Printable => vouched(encoder.encode(escapeOutput(text)))

/** Bytes whose writer has escaped each string and key: those of `DumpWriter`, which are too many to look at again. */
export const dumpPieces = (pieces: Iterable<Uint8Array>): Iterable<Printable> => ({
  *[Symbol.iterator]() {
    for (const piece of pieces) yield vouched(piece)
  }
})

/** A guest's console as it is, since it is the terminal's to interpret. */
export const consoleBytes = (piece: Uint8Array): Printable => vouched(piece)

const vouched = (bytes: Uint8Array): Printable => bytes as Printable
