/** The page: the element full-screen, the samples, pasting, and what the address asks for. */

import "../element/groma-chat.js";
import type { DeviceWish, Info } from "../engine/index.js";
import { showSamples } from "./samples.js";

const MODEL = "models/groma-s/";

const chat = document.querySelector("groma-chat");
const device = document.querySelector("#device");
const samples = document.querySelector<HTMLElement>("#samples");

if (chat) {
  const asked = new URLSearchParams(location.search);
  const wish = asked.get("device");
  if (wish === "gpu" || wish === "cpu") chat.device = wish satisfies DeviceWish;
  if (asked.get("numerics") === "exact") chat.numerics = "exact";
  const question = asked.get("question");
  if (question) chat.question = question;
  chat.model = new URL(asked.get("model") ?? MODEL, document.baseURI).href;

  chat.addEventListener("groma-ready", ({ detail }) => {
    if (device) device.textContent = words(detail);
  });

  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((f) => f.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    void chat.open(file, "Pasted photo");
  });

  // A photo dropped beside the element must not replace the page.
  for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());

  if (samples) void showSamples(samples, chat);
}

function words(info: Info): string {
  return info.device === "gpu" ? `${info.model} · ${info.adapter || "GPU"}` : `${info.model} · processor`;
}
