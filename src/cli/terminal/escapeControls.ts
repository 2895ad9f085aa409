import { escapeText } from "../../core/EscapeText.ts"

/** Control and format characters but the newline, line and paragraph separators, halves of surrogate pairs. */
const controls = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

/**
 * Text from a guest, an image or the user, fit for a terminal: control characters, which could move its cursor or set
 * its title, are spelled out (`\x1b`). Newlines stay.
 */
export const escapeControls = (text: string): string =>
  text.replace(controls, (character) => {
    const code = character.charCodeAt(0)
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : escapeText(character)
  })

/** As `escapeControls`, on one line: a blank stands for a line's end and the space around it. */
export const escapeLine = (text: string): string => escapeControls(oneLine(text)).trim()

/** No regular expression: one that looks for space before a line's end takes the square of the space's length. */
const oneLine = (text: string): string => {
  if (!text.includes("\n")) return text
  const lines = text.split("\n")
  const last = lines.length - 1
  return lines.map((line, at) => at === 0 ? line.trimEnd() : at === last ? line.trimStart() : line.trim())
    .filter((line, at) => line !== "" || at === 0 || at === last).join(" ")
}
