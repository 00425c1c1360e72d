/** A class for each colour of phrases and boxes. */

import { unsafeCSS } from "lit";
import { HUES } from "../palette.js";

export const colours = unsafeCSS(HUES.map((hue, at) => `.c${at} { --c: ${hue}; }`).join("\n"));
