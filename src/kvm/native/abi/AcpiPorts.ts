/** The chipset's reset control; bit 2 of what is written there resets. */
export const RESET_PORT = 0xcf9
/** ACPI's fixed registers: status and enable at +0, control at +4. */
export const PM_PORT = 0x600
/** SLP_TYP of the state S5, "off", as the DSDT's `\_S5` says. */
export const S5_TYPE = 5
