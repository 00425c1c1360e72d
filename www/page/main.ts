/** The page: the element full-screen, and around it samples, camera, sharing, the choice of a model, what runs here. */

import { GromaChat } from "../element/groma-chat.js";
import { pastedPhoto } from "../element/intake.js";
import type { Info, Timing } from "../engine/index.js";
import { fillAbout } from "./about.js";
import { Camera } from "./camera.js";
import { part } from "./dom.js";
import { ModelChoice } from "./model-choice.js";
import { Samples } from "./samples.js";
import { ownModel, readSetting, writeSetting } from "./setting.js";
import { Share } from "./share.js";

const chat = part(document, "groma-chat", GromaChat);
const device = part(document, "#device", HTMLElement);
const setting = readSetting(new URL(location.href));
const samples = new Samples(chat);
let info: Info | undefined;
let timing: Timing | undefined;

chat.device = setting.device;
if (setting.exact) chat.numerics = "exact";
if (setting.task) chat.task = setting.task;
if (setting.question !== undefined) chat.question = setting.question;
// They wait for the sample, or for the first photo that is opened, and are brought inside it.
if (setting.boxes) chat.boxes = setting.boxes;
chat.model = setting.model;
chat.smaller = ownModel();

chat.addEventListener("groma-ready", ({ detail }) => {
  info = detail;
  device.textContent = words(detail);
});
chat.addEventListener("groma-answer", ({ detail }) => (timing = detail.result.timing));

document.addEventListener("paste", (event) => {
  const file = pastedPhoto(event);
  // Inside the element it was taken already.
  if (!file || event.defaultPrevented) return;
  event.preventDefault();
  void chat.open(file, "Pasted photo");
});

// A photo dropped beside the element must not replace the page.
for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());

const dialog = (name: string) => part(document, `dialog#${name}`, HTMLDialogElement);
const camera = new Camera(dialog("camera"), (photo) => void chat.open(photo, "Photo of the camera"));
const share = new Share(dialog("share"), chat, samples);
const choice = new ModelChoice(dialog("model"), chat, () => {
  info = undefined;
  timing = undefined;
  device.textContent = "";
  // A reload finds the same model.
  history.replaceState(null, "", writeSetting(new URL(location.href), chat, samples.current));
});
const opens: Record<string, () => void> = {
  camera: () => void camera.open(),
  share: () => share.open(),
  model: () => choice.open(),
  about: () => {
    fillAbout(part(dialog("about"), "dl", HTMLElement), info, timing);
    dialog("about").showModal();
  },
};
for (const button of document.querySelectorAll<HTMLButtonElement>("[data-opens]")) {
  button.addEventListener("click", () => opens[button.dataset.opens ?? ""]?.());
}
for (const button of document.querySelectorAll("dialog [data-does=close]")) {
  button.addEventListener("click", () => button.closest("dialog")?.close());
}

const update = part(document, "#update", HTMLElement);
let apply: (() => void) | undefined;
part(update, "button", HTMLButtonElement).addEventListener("click", () => apply?.());
window.addEventListener("groma-update", ({ detail }) => {
  update.hidden = false;
  ({ apply } = detail);
});

void samples.show(part(document, "#samples", HTMLElement)).then(async () => {
  if (setting.sample) await samples.open(setting.sample);
});
function words({ device: kind, model }: Info): string {
  return `${model} · ${kind === "gpu" ? "GPU" : "CPU"}`;
}
