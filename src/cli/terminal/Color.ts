import { styleText } from "node:util"

/** Whether stdout is a terminal that text is styled for. */
export const COLORED: boolean = process.stdout.isTTY === true && (process.env["NO_COLOR"] ?? "") === ""

/** Styles on a terminal, plain text elsewhere and where NO_COLOR is set. */
export const bold = (text: string): string => COLORED ? styleText("bold", text) : text
export const dim = (text: string): string => COLORED ? styleText("dim", text) : text
export const red = (text: string): string => COLORED ? styleText("red", text) : text
export const green = (text: string): string => COLORED ? styleText("green", text) : text
export const yellow = (text: string): string => COLORED ? styleText("yellow", text) : text
