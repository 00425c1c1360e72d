// No inline script, no eval, no blob: everything is a file of this host.

import "./groma/groma-chat.js";

const log = document.getElementById("log");

document.querySelector("groma-chat").addEventListener("groma-answer", ({ detail }) => {
  const item = document.createElement("li");
  item.textContent = detail.result.text || "(boxes only)";
  log.append(item);
});
