import { styleText } from "node:util"

const on = process.stdout.isTTY === true && (process.env["NO_COLOR"] ?? "") === ""

/** Styles on a terminal, plain text elsewhere and where NO_COLOR is set. */
export const bold = (text: string): string => on ? styleText("bold", text) : text
export const dim = (text: string): string => on ? styleText("dim", text) : text
export const red = (text: string): string => on ? styleText("red", text) : text
export const green = (text: string): string => on ? styleText("green", text) : text
export const yellow = (text: string): string => on ? styleText("yellow", text) : text
