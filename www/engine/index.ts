/** `groma-web`: a photo and a question go in, a grounded answer comes out. */

export { Answer, joinText } from "./answer.js";
export { chooseDevice, type DeviceWish } from "./device.js";
export { GromaError, type Reason } from "./error.js";
export { DownloadProgressEvent, Groma, type CreateOptions, type ModelOptions } from "./groma.js";
export {
  Photo,
  type AnswerOptions,
  type AskOptions,
  type CaptionOptions,
  type OpenOptions,
  type PhotoInput,
} from "./photo.js";
export type { StageProgress } from "./protocol.js";
export type * from "./types.js";
