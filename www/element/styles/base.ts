/** Colours, type, buttons and the two panes. */

import { css } from "./css.js";

export const base = css`
  :host {
    --paper: var(--groma-paper, light-dark(#f6f5f1, #131416));
    --surface: var(--groma-surface, light-dark(#ffffff, #1c1e21));
    --sunken: light-dark(#eceae4, #0c0d0e);
    --ink: var(--groma-ink, light-dark(#1b1c1e, #ecebe8));
    --soft: var(--groma-soft, light-dark(#5e6065, #a3a5a9));
    --line: var(--groma-line, light-dark(#dfdcd4, #303338));
    --accent: var(--groma-accent, light-dark(#9f3b22, #f0936f));
    --on-accent: var(--groma-on-accent, light-dark(#ffffff, #1d0d06));
    --bad: light-dark(#a3201b, #ff9d94);
    --radius: var(--groma-radius, 10px);
    display: block;
    position: relative;
    height: 100%;
    min-height: var(--groma-min-height, 30rem);
    container: groma / size;
    background: var(--paper);
    color: var(--ink);
    /* What the reader set in the browser, unless the page tells another. */
    font: 400 var(--groma-font-size, medium) / 1.55
      var(--groma-font, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif);
    --_groma-unit: 1em;
    text-align: start;
  }

  :host([hidden]) {
    display: none;
  }

  * {
    box-sizing: border-box;
  }

  h2,
  p,
  ul {
    margin: 0;
    padding: 0;
  }

  h2 {
    font-size: 1.0625rem;
    font-weight: 600;
    line-height: 1.35;
    text-wrap: balance;
  }

  /* As high as the element is, also where its page gives it no height: a share of none would be as much as the talk is long. */
  .shell {
    position: absolute;
    inset: 0;
    display: grid;
    grid-template: "stage bar" auto "stage talk" minmax(0, 1fr) / minmax(0, 1.55fr) minmax(22rem, 1fr);
  }

  .stage,
  .talk {
    display: flex;
    flex-direction: column;
    min-width: 0;
    min-height: 0;
  }

  .stage {
    grid-area: stage;
  }

  .bar {
    grid-area: bar;
  }

  .talk {
    grid-area: talk;
  }

  .bar,
  .talk {
    background: var(--surface);
    border-inline-start: 1px solid var(--line);
  }

  /* Words run as they are written, whatever the page around does: an English answer ends on the right. */
  h2,
  p,
  button,
  input,
  .answer,
  .status {
    unicode-bidi: plaintext;
  }

  .muted {
    color: var(--soft);
  }

  .small {
    font-size: 0.875rem;
    line-height: 1.45;
  }

  .tabular {
    font-variant-numeric: tabular-nums;
  }

  .unseen {
    position: absolute;
    width: 1px;
    height: 1px;
    overflow: hidden;
    clip-path: inset(50%);
    white-space: nowrap;
  }

  button {
    min-height: 2.25rem;
    padding: 0.35rem 0.85rem;
    border: 1px solid var(--line);
    border-radius: calc(var(--radius) - 2px);
    background: var(--surface);
    color: inherit;
    font: inherit;
    font-size: 0.9375rem;
    cursor: pointer;
  }

  button:hover {
    border-color: var(--soft);
  }

  button:disabled {
    opacity: 0.45;
    cursor: default;
  }

  :focus-visible {
    outline: 2px solid var(--accent);
    outline-offset: 2px;
  }

  .primary {
    border-color: transparent;
    background: var(--accent);
    color: var(--on-accent);
    font-weight: 600;
    white-space: nowrap;
  }

  .primary:hover:not(:disabled) {
    border-color: transparent;
    background: color-mix(in srgb, var(--accent) 88%, var(--ink));
  }

  .quiet {
    min-height: 2rem;
    padding: 0.2rem 0.65rem;
    border-color: transparent;
    background: transparent;
    font-size: 0.875rem;
  }

  .quiet:hover:not(:disabled) {
    border-color: transparent;
    background: color-mix(in srgb, var(--ink) 8%, transparent);
  }

  .quiet[aria-pressed="true"] {
    background: color-mix(in srgb, var(--accent) 16%, transparent);
    color: var(--accent);
  }

  /* Backgrounds go where the reader has colours of their own: a line tells what is pressed. */
  @media (forced-colors: active) {
    .quiet[aria-pressed="true"] {
      outline: 2px solid Highlight;
      outline-offset: -2px;
    }
  }

  .drop {
    position: absolute;
    inset: 0.75rem;
    z-index: 5;
    display: grid;
    place-items: center;
    border: 2px dashed var(--accent);
    border-radius: var(--radius);
    background: color-mix(in srgb, var(--surface) 88%, transparent);
    font-size: 1.25rem;
    pointer-events: none;
  }

  @container groma (max-width: 46em) {
    .shell {
      grid-template: "bar" auto "stage" auto "talk" minmax(0, 1fr) / minmax(0, 1fr);
    }
    .bar {
      border-inline-start: 0;
    }
    .has-photo .stage {
      height: 44cqh;
    }
    /* Before a photo everything is one page that scrolls: the button that loads the model must be reachable. */
    .shell:not(.has-photo) {
      grid-template-rows: repeat(3, max-content);
      align-content: start;
      overflow-y: auto;
    }
    .shell:not(.has-photo) .log:not(:has(.turn, .problem)) {
      display: none;
    }
    .talk {
      border-inline-start: 0;
      border-block-start: 1px solid var(--line);
    }
  }

  @media (prefers-reduced-motion: reduce) {
    * {
      animation: none !important;
      transition: none !important;
    }
  }
`;
