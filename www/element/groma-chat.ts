/** Defines `<groma-chat>`. */

import { GromaChat } from "./chat.js";

if (!customElements.get("groma-chat")) customElements.define("groma-chat", GromaChat);

export { GromaChat };
export type { GromaEvents } from "./events.js";
