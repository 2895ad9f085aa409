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

/** As `escapeControls`, on one line. */
export const escapeLine = (text: string): string => escapeControls(text.replaceAll(/\s*\n\s*/g, " ")).trim()
