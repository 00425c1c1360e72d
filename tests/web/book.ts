/** A book as mdBook makes it: its frame, its type, and the shortcuts that it has on every page. */

/** Every shortcut that a key set off; what mdBook does then is left out. */
declare global {
  var shortcuts: string[];
}

/** A chapter in mdBook's frame. Its style and its listeners are what mdBook 0.5 has of them, in our words. */
export function bookPage(title: string, chapter: string): string {
  return `<!DOCTYPE html>
<html lang="en" class="light sidebar-visible" dir="ltr">
  <head>
    <meta charset="UTF-8">
    <title>${title}</title>
    <link rel="icon" href="data:,">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <link rel="stylesheet" href="book.css">
    <script defer src="book.js"></script>
  </head>
  <body>
    <div id="mdbook-body-container">
      <nav id="mdbook-sidebar" class="sidebar" aria-label="Table of contents">
        <ol class="chapter"><li><a href="#">${title}</a></li></ol>
      </nav>
      <div id="mdbook-page-wrapper" class="page-wrapper">
        <div class="page"><div id="mdbook-content" class="content"><main>${chapter}</main></div></div>
      </div>
    </div>
  </body>
</html>`;
}

/** mdBook's sizes: a rem has 10 pixels. */
export const BOOK_STYLE = `
  :root { --content-max-width: 750px; font-size: 62.5%; }
  html { font-family: "Open Sans", sans-serif; color: #333; background: #fff; }
  body { margin: 0; font-size: 1.6rem; overflow-x: hidden; }
  #mdbook-sidebar { position: fixed; inset: 0 auto 0 0; width: 200px; }
  .page-wrapper { padding-left: 200px; }
  .content { overflow-y: auto; padding: 0 5px 50px; }
  .content main { margin-inline: auto; max-width: var(--content-max-width); }
  .content p { line-height: 1.45em; }
  .content img { max-width: 100%; }
  input, button { font-size: inherit; font-family: inherit; }
`;

/** mdBook's keys: they look at the event's target and never at whether someone has taken the key. */
export const BOOK_SCRIPT = `
  globalThis.shortcuts = [];
  const typing = ({ target }) => target.tagName === "INPUT" || target.tagName === "TEXTAREA" || target.isContentEditable;
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") shortcuts.push(event.key);
    if (event.key === "?" && !typing(event)) shortcuts.push(event.key);
    if (event.key === "Escape") shortcuts.push(event.key);
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || typing(event)) return;
    if (event.key === "s" || event.key === "/") { event.preventDefault(); shortcuts.push(event.key); }
  }, false);
`;
