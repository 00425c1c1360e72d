/** Conversation, gate and composer. */

import { css } from "./css.js";

export const talk = css`
  .log {
    flex: 1;
    min-height: 0;
    overflow-y: auto;
    padding: 1.25rem;
    overscroll-behavior: contain;
  }

  .log:focus-visible {
    outline-offset: -2px;
  }

  .welcome {
    max-width: 34em;
  }

  .ideas {
    display: flex;
    flex-wrap: wrap;
    gap: 0.5rem;
    margin-top: 1rem;
  }

  .idea {
    border-radius: 1.25rem;
    background: transparent;
  }

  .anew {
    margin-block-start: 1.25rem;
    margin-inline-start: -0.65rem;
    color: var(--soft);
  }

  .turn + .turn {
    margin-top: 1.75rem;
  }

  .question {
    width: fit-content;
    max-width: 90%;
    margin-inline-start: auto;
    padding: 0.45rem 0.85rem;
    border-radius: 14px;
    border-end-end-radius: 4px;
    background: color-mix(in srgb, var(--ink) 8%, transparent);
    overflow-wrap: anywhere;
  }

  .tag {
    margin-inline-end: 0.25rem;
    color: var(--soft);
    font-size: 0.875rem;
  }

  .answer {
    margin-top: 0.85rem;
    font-size: 1.0625rem;
    line-height: 1.85;
    overflow-wrap: anywhere;
  }

  .answer > p {
    display: inline;
  }

  .phrase {
    /* What is only read out stays where it is. */
    position: relative;
    display: inline;
    min-height: 0;
    margin: 0;
    padding-block: 0.1em;
    padding-inline: 0.2em 0.15em;
    border: 0;
    border-radius: 5px;
    background: color-mix(in srgb, var(--c) 13%, transparent);
    box-shadow: inset 0 -2px 0 var(--c);
    font: inherit;
    text-align: start;
    -webkit-box-decoration-break: clone;
    box-decoration-break: clone;
    transition: background-color 0.15s;
  }

  .phrase:hover,
  .phrase.active {
    background: color-mix(in srgb, var(--c) 30%, transparent);
  }

  .phrase[aria-pressed="true"] {
    box-shadow: inset 0 0 0 2px var(--c);
  }

  .phrase.bare {
    background: none;
    box-shadow: none;
    color: var(--soft);
  }

  .chip {
    display: inline-block;
    min-width: 1.35em;
    margin-inline-start: 0.3em;
    padding: 0 0.35em;
    border-radius: 4px;
    background: var(--c);
    color: #ffffff;
    font-size: 0.75em;
    font-weight: 600;
    font-variant-numeric: tabular-nums;
    line-height: 1.6;
    text-align: center;
    vertical-align: 0.08em;
  }

  .bare .chip {
    font-size: 0.9375em;
  }

  .caret {
    display: inline-block;
    width: 0.5em;
    height: 1em;
    margin-inline-start: 0.15em;
    border-radius: 2px;
    background: var(--accent);
    vertical-align: -0.12em;
    animation: blink 1.1s steps(2, jump-none) infinite;
  }

  .dots i {
    display: inline-block;
    width: 0.4em;
    height: 0.4em;
    margin-inline-end: 0.3em;
    border-radius: 50%;
    background: var(--soft);
    animation: dot 1.2s ease-in-out infinite;
  }

  .dots i:nth-child(2) {
    animation-delay: 0.15s;
  }

  .dots i:nth-child(3) {
    animation-delay: 0.3s;
  }

  @keyframes blink {
    to {
      opacity: 0;
    }
  }

  @keyframes dot {
    0%,
    60%,
    100% {
      opacity: 0.3;
    }
    30% {
      opacity: 1;
    }
  }

  .again {
    margin-block-start: 0.35rem;
    margin-inline-start: -0.65rem;
  }

  .problem ~ .way {
    margin-block-start: 0.5rem;
  }

  .foot {
    margin-top: 0.35rem;
    color: var(--soft);
    font-size: 0.8125rem;
    font-variant-numeric: tabular-nums;
  }

  .nothing {
    color: var(--soft);
  }

  .problem {
    padding: 0.65rem 0.85rem;
    border-inline-start: 3px solid var(--bad);
    border-radius: 4px;
    background: color-mix(in srgb, var(--bad) 10%, transparent);
    font-size: 0.9375rem;
    line-height: 1.5;
  }

  .gate,
  .composer {
    display: grid;
    /* No wider than the element, however wide a field would like to be. */
    grid-template-columns: minmax(0, 1fr);
    gap: 0.6rem;
    padding: 0.9rem 1.25rem 1.1rem;
    border-block-start: 1px solid var(--line);
  }

  .gate-row {
    display: flex;
    flex-wrap: wrap;
    align-items: center;
    justify-content: space-between;
    gap: 0.75rem 1rem;
  }

  .gate-row > div {
    flex: 1 1 12rem;
  }

  .gate-buttons {
    display: flex;
    flex-wrap: wrap;
    gap: 0.5rem;
  }

  .note {
    padding: 0.5rem 0.7rem;
    border-radius: 8px;
    background: color-mix(in srgb, var(--ink) 6%, transparent);
    color: var(--soft);
  }

  progress {
    width: 100%;
    height: 0.5rem;
    border: 0;
    border-radius: 1rem;
    background: var(--sunken);
    overflow: hidden;
    appearance: none;
  }

  progress::-webkit-progress-bar {
    background: var(--sunken);
  }

  progress::-webkit-progress-value {
    border-radius: 1rem;
    background: var(--accent);
  }

  progress::-moz-progress-bar {
    border-radius: 1rem;
    background: var(--accent);
  }

  .tasks {
    display: flex;
    flex-wrap: wrap;
    gap: 0.15rem;
  }

  .task {
    min-height: 1.9rem;
    padding: 0.1rem 0.6rem;
    border-color: transparent;
    border-radius: 1rem;
    background: transparent;
    color: var(--soft);
    font-size: 0.875rem;
  }

  .task:hover {
    border-color: var(--line);
  }

  .task[aria-checked="true"] {
    border-color: transparent;
    background: var(--ink);
    color: var(--surface);
  }

  .line {
    display: flex;
    align-items: center;
    gap: 0.5rem;
    padding-block: 0.3rem;
    padding-inline: 0.85rem 0.3rem;
    border: 1px solid var(--line);
    border-radius: 12px;
    background: var(--paper);
  }

  .line:focus-within {
    border-color: var(--accent);
  }

  .line input {
    flex: 1;
    min-width: 0;
    min-height: 2.25rem;
    padding: 0;
    border: 0;
    background: none;
    color: inherit;
    font: inherit;
    outline: none;
  }

  .line input::placeholder {
    color: var(--soft);
    opacity: 1;
  }

  .instead {
    flex: 1;
    color: var(--soft);
  }

  .refers {
    display: flex;
    flex-wrap: wrap;
    gap: 0.35rem;
    list-style: none;
  }

  .refers li {
    display: flex;
    align-items: center;
    padding-inline-start: 0.6rem;
    border: 1px dashed var(--soft);
    border-radius: 6px;
    font-size: 0.875rem;
  }

  .refers button {
    min-width: 1.75rem;
    min-height: 1.75rem;
    padding: 0;
    border: 0;
    background: none;
    line-height: 1;
  }

  .stop {
    background: var(--ink);
    color: var(--surface);
  }

  @container groma (max-width: 46em) {
    .log {
      padding: 0.9rem 1rem;
    }
    .gate,
    .composer {
      padding: 0.7rem 1rem 0.9rem;
    }
    .tasks {
      flex-wrap: nowrap;
      overflow-x: auto;
      margin-inline: -0.25rem;
      padding: 0.15rem 0.25rem;
      scrollbar-width: none;
    }
    .task {
      flex: none;
    }
  }

  @media (forced-colors: active) {
    /* Colours of the system; what was told by a background is told by a line. */
    .task[aria-checked="true"],
    .phrase[aria-pressed="true"],
    .phrase.active {
      outline: 2px solid Highlight;
      outline-offset: -2px;
    }
    .line:focus-within {
      outline: 2px solid Highlight;
    }
    .chip,
    .question,
    .line,
    progress {
      border: 1px solid CanvasText;
    }
    /* What is nothing but a background keeps it. */
    .caret,
    .dots i {
      background: CanvasText;
      forced-color-adjust: none;
    }
    progress::-webkit-progress-value {
      background: Highlight;
      forced-color-adjust: none;
    }
    progress::-moz-progress-bar {
      background: Highlight;
      forced-color-adjust: none;
    }
  }
`;
