/** The photo, its boxes, the invitation. */

import { css } from "./css.js";

export const photo = css`
  .invitation {
    display: flex;
    flex-direction: column;
    align-items: center;
    gap: 0.5rem;
    padding: 2rem 1.5rem 1.25rem;
    text-align: center;
  }

  .stage:has(.invitation) {
    justify-content: safe center;
    overflow: auto;
  }

  .invitation h2 {
    font-size: 1.375rem;
    letter-spacing: -0.01em;
  }

  .ways {
    display: flex;
    flex-wrap: wrap;
    justify-content: center;
    gap: 0.5rem;
    margin-top: 0.75rem;
  }

  .mark {
    width: 3.5rem;
    margin-bottom: 0.5rem;
    fill: none;
    stroke: var(--accent);
    stroke-width: 2.25;
    stroke-linecap: round;
  }

  .pane {
    container-type: size;
    flex: 1;
    display: grid;
    place-items: center;
    min-height: 0;
    margin: 1rem 1rem 0;
    /* Photos have no writing direction. */
    direction: ltr;
  }

  /* The photo is larger than its pane: the browser pans by scrolling. */
  .pane.zoomed {
    place-items: safe center;
    overflow: auto;
  }

  .frame {
    position: relative;
    width: calc(min(100cqw, 100cqh * var(--ratio, 1)) * var(--zoom, 1));
    aspect-ratio: var(--ratio, 1);
    border-radius: 6px;
    background: var(--sunken);
    cursor: crosshair;
    /* A finger scrolls; two fingers are the photo's own. */
    touch-action: pan-x pan-y;
    user-select: none;
    -webkit-user-select: none;
  }

  .frame.armed {
    outline: 2px solid var(--accent);
    outline-offset: 3px;
    touch-action: none;
  }

  .frame img {
    display: block;
    width: 100%;
    height: 100%;
    border-radius: inherit;
    -webkit-user-drag: none;
  }

  .boxes {
    position: absolute;
    inset: 0;
  }

  .box,
  .drawn {
    position: absolute;
    border-radius: 3px;
  }

  /* Light inside, dark outside: seen on every photo. */
  .box {
    border: 1.5px solid var(--c);
    box-shadow: 0 0 0 1px rgb(0 0 0 / 0.35);
    cursor: pointer;
    transition:
      opacity 0.15s,
      background-color 0.15s;
  }

  .box:not(.tied) {
    --c: rgb(255 255 255 / 0.8);
    opacity: 0.75;
  }

  .box.tied {
    border-width: 2.5px;
    box-shadow:
      0 0 0 1px rgb(255 255 255 / 0.9),
      inset 0 0 0 1px rgb(255 255 255 / 0.9);
    z-index: 1;
  }

  .box.dimmed {
    opacity: 0.3;
  }

  .box.active {
    opacity: 1;
    z-index: 2;
    border-width: 3px;
    background: color-mix(in srgb, var(--c) 22%, transparent);
  }

  .box:focus-visible {
    outline: 3px solid #ffffff;
    outline-offset: 1px;
    box-shadow: 0 0 0 5px #000000;
    opacity: 1;
    z-index: 3;
  }

  .number {
    position: absolute;
    top: -1.5px;
    left: -1.5px;
    min-width: 1.15rem;
    padding: 0 0.25rem;
    border-radius: 3px 0 4px 0;
    background: rgb(20 20 20 / 0.62);
    color: #ffffff;
    font:
      600 0.6875rem/1.15rem system-ui,
      sans-serif;
    font-variant-numeric: tabular-nums;
    text-align: center;
    pointer-events: none;
  }

  .tied .number {
    top: -2.5px;
    left: -2.5px;
    min-width: 1.4rem;
    background: var(--c);
    font-size: 0.8125rem;
    line-height: 1.4rem;
  }

  .drawn {
    z-index: 4;
    border: 2px dashed #ffffff;
    background: rgb(255 255 255 / 0.12);
    box-shadow:
      0 0 0 1px rgb(0 0 0 / 0.65),
      inset 0 0 0 1px rgb(0 0 0 / 0.35);
    pointer-events: none;
  }

  .drawn.editable {
    pointer-events: auto;
    cursor: move;
    touch-action: none;
  }

  /* While a new box is drawn, the others don't stand in its way. */
  .drawn.fixed {
    pointer-events: none;
  }

  .drawn:focus-visible {
    outline: 3px solid #ffffff;
    outline-offset: 1px;
    box-shadow: 0 0 0 5px #000000;
  }

  .drawn.asked {
    z-index: 0;
    opacity: 0.9;
  }

  /* Large enough for a finger, half of it outside so that small boxes can still be moved. */
  .grip {
    position: absolute;
    width: 1.5rem;
    height: 1.5rem;
    touch-action: none;
  }

  .grip::after {
    content: "";
    position: absolute;
    inset: 0.45rem;
    border: 1px solid #111111;
    border-radius: 2px;
    background: #ffffff;
  }

  .fixed .grip {
    display: none;
  }

  .grip.nw {
    top: -0.8rem;
    left: -0.8rem;
    cursor: nwse-resize;
  }

  .grip.ne {
    top: -0.8rem;
    right: -0.8rem;
    cursor: nesw-resize;
  }

  .grip.sw {
    bottom: -0.8rem;
    left: -0.8rem;
    cursor: nesw-resize;
  }

  .grip.se {
    right: -0.8rem;
    bottom: -0.8rem;
    cursor: nwse-resize;
  }

  .drawn .number {
    top: 0.3rem;
    left: 0.3rem;
    border-radius: 4px;
    background: #111111;
    font-size: 0.8125rem;
    line-height: 1.4rem;
  }

  .looking .scan {
    position: absolute;
    inset: 0;
    border-radius: inherit;
    overflow: hidden;
    pointer-events: none;
  }

  .looking .scan::before {
    content: "";
    position: absolute;
    inset: 0;
    background: linear-gradient(180deg, transparent 40%, rgb(255 255 255 / 0.35) 50%, transparent 60%);
    background-size: 100% 250%;
    animation: scan 2.2s linear infinite;
  }

  @keyframes scan {
    from {
      background-position: 0 120%;
    }
    to {
      background-position: 0 -20%;
    }
  }

  .tools {
    display: flex;
    flex-wrap: wrap;
    align-items: center;
    gap: 0.25rem;
    padding: 0.6rem 1rem 0.75rem;
  }

  .status {
    flex: 1;
    min-width: 5rem;
    font-variant-numeric: tabular-nums;
  }

  .zoom {
    display: flex;
  }

  .zoom button {
    min-width: 2rem;
    padding-inline: 0;
    font-size: 1.125rem;
    line-height: 1;
  }

  @container groma (max-width: 46em) {
    .pane {
      margin: 0.5rem 0.5rem 0;
    }
    .tools {
      gap: 0;
      padding: 0.35rem 0.5rem;
    }
    .status {
      min-width: 0;
    }
    .tools .quiet {
      padding-inline: 0.45rem;
    }
    .invitation {
      padding: 1.25rem 1rem 1rem;
    }
    .stage:has(.invitation) {
      overflow: visible;
    }
  }

  @container groma (max-width: 26em) {
    .status {
      flex-basis: 100%;
      padding-inline: 0.45rem;
    }
    .tools .quiet {
      padding-inline: 0.3rem;
      font-size: 0.8125rem;
    }
  }

  @media (forced-colors: active) {
    .box,
    .drawn {
      border-color: CanvasText;
      forced-color-adjust: none;
    }
    .box.active {
      border-color: Highlight;
    }
  }
`;
