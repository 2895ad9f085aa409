/** Control and format characters (bidi marks, zero-width ones, tags), line and paragraph separators, halves of surrogate pairs. */
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

/** Only printable ASCII, as nearly all text is: quicker to test than the absence of the characters above. */
const PLAIN = /^[ -~]*$/

/** By UTF-16 unit, as JSON and JavaScript write it: a character beyond U+FFFF takes two. */
const escaped = (character: string): string => {
  let text = ""
  for (let at = 0; at < character.length; at++) text += `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`
  return text
}

/**
 * Text of a guest, a file or a server that a terminal shows as it is: everything that could move the cursor, color,
 * reorder or hide text is written as an escape, `\u001b`.
 */
export const escapeText = (text: string): string => PLAIN.test(text) ? text : text.replace(UNPRINTABLE, escaped)

/** A value as JSON (`JSON.stringify`) whose strings and keys, which are the same when parsed, are safe for a terminal. */
export const escapedJson = (value: unknown): string => escapeText(JSON.stringify(value))
