/** How the element looks. */

import { base } from "./base.js";
import { colours } from "./colours.js";
import { photo } from "./photo.js";
import { print } from "./print.js";
import { talk } from "./talk.js";

export const styles = [base, colours, photo, talk, print];
