/** The colours of phrases and boxes: white on each has a contrast of 4.5 and more. */

import { css } from "lit";

export const colours = css`
  .c0 {
    --c: #1c5fd4;
  }
  .c1 {
    --c: #c02f2a;
  }
  .c2 {
    --c: #1b7a3d;
  }
  .c3 {
    --c: #7b3fc4;
  }
  .c4 {
    --c: #a85400;
  }
  .c5 {
    --c: #0b7382;
  }
  .c6 {
    --c: #b5257c;
  }
  .c7 {
    --c: #676500;
  }
`;
