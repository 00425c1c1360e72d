/** Defines `<groma-chat>`. */

import { GromaChat } from "./chat.js";

// A server that renders the page has no registry.
if (typeof customElements !== "undefined" && !customElements.get("groma-chat"))
  customElements.define("groma-chat", GromaChat);

export { GromaChat };
export type { GromaEvents } from "./events.js";
export type { Chosen, OpenPhoto, Turn } from "./session.js";
export type { TaskName } from "./words.js";
