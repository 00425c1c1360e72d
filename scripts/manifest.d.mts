/** The manifest of `<groma-chat>` as custom-elements.json holds it. */
export function manifestText(): Promise<string>;
