/** On paper: photo, boxes and answers, each whole. Stands last, so that it wins over what it takes away. */

import { css } from "./css.js";

export const print = css`
  @media print {
    :host {
      --paper: #ffffff;
      --surface: #ffffff;
      --ink: #1b1c1e;
      --soft: #5e6065;
      --line: #dfdcd4;
      height: auto;
      min-height: 0;
      container: none;
      color-scheme: only light;
    }
    .shell {
      position: static;
      display: block;
    }
    .bar,
    .talk {
      border: 0;
    }
    .composer,
    .gate,
    .tools,
    .anew,
    .again,
    .way,
    .welcome {
      display: none;
    }

    .pane {
      display: block;
      container-type: normal;
      margin: 0 0 1rem;
    }
    .pane.zoomed {
      overflow: visible;
    }
    /* At most half a page, so that the answer is on the same one. */
    .frame {
      width: min(100%, 50vh * var(--ratio, 1));
      margin-inline: auto;
      break-inside: avoid;
      print-color-adjust: exact;
    }
    .grip {
      display: none;
    }

    .log {
      overflow: visible;
      padding: 0 0.25rem;
    }
    .turn {
      break-inside: avoid;
    }
    .phrase,
    .chip {
      print-color-adjust: exact;
    }
  }
`;
