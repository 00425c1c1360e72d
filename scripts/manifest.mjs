// Writes custom-elements.json, which editors and documentation read, out of the element's class and its comments.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import ts from "typescript";
import { root } from "./lib.mjs";

const SOURCE = "www/element/chat.ts";
// Where the package has it.
const MODULE = "dist/groma/groma-chat.js";

/** The manifest of `<groma-chat>`, in the schema of custom-elements-manifest. */
export async function manifest() {
  const text = await readFile(join(root, SOURCE), "utf8");
  const file = ts.createSourceFile(SOURCE, text, ts.ScriptTarget.Latest, true);
  const element = file.statements.find((s) => ts.isClassDeclaration(s) && s.name?.text === "GromaChat");
  if (!element) throw new Error(`${SOURCE} has no class GromaChat`);
  const tags = tagsOf(element);
  const members = element.members.filter(isPublic).map(memberOf);
  const reference = { name: "GromaChat", module: MODULE };
  return {
    schemaVersion: "1.0.0",
    modules: [
      {
        kind: "javascript-module",
        path: MODULE,
        declarations: [
          {
            kind: "class",
            customElement: true,
            name: "GromaChat",
            tagName: "groma-chat",
            superclass: { name: "LitElement", package: "lit" },
            description: descriptionOf(element),
            summary: tags.find(({ name }) => name === "summary")?.text,
            attributes: members.filter((m) => m.attribute).map(attributeOf),
            members,
            events: tags.filter(({ name }) => name === "fires").map(eventOf),
            slots: named(tags, "slot"),
            cssParts: named(tags, "csspart"),
            cssProperties: named(tags, "cssproperty"),
          },
        ],
        exports: [
          { kind: "js", name: "GromaChat", declaration: reference },
          { kind: "custom-element-definition", name: "groma-chat", declaration: reference },
        ],
      },
    ],
  };
}

/** The manifest as it is written. */
export async function manifestText() {
  return `${JSON.stringify(await manifest(), undefined, 2)}\n`;
}

function tagsOf(node) {
  return ts.getJSDocTags(node).map((tag) => ({
    name: tag.tagName.text,
    text: (ts.getTextOfJSDocComment(tag.comment) ?? "").replace(/\s+/g, " ").trim(),
  }));
}

function descriptionOf(node) {
  const [comment] = ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc);
  return (ts.getTextOfJSDocComment(comment?.comment) ?? "").replace(/\s+/g, " ").trim();
}

/** `poster - Shown …` as name and description. */
function named(tags, wanted) {
  return tags
    .filter(({ name }) => name === wanted)
    .map(({ text }) => {
      const [, name, description] = /^(\S+) - (.*)$/.exec(text) ?? [];
      if (!name) throw new Error(`@${wanted} ${text}: expected a name, " - " and a description`);
      return { name, description };
    });
}

function eventOf({ text }) {
  const [, type, name, description] = /^\{(.*)\} (\S+) - (.*)$/.exec(text) ?? [];
  if (!type) throw new Error(`@fires ${text}: expected a type in braces, a name, " - " and a description`);
  return { name, type: { text: type }, description };
}

/** What a page's author may use: it has a comment, and it is neither private, nor Lit's, nor for tests only. */
function isPublic(member) {
  const flags = ts.getCombinedModifierFlags(member);
  const hidden = ts.ModifierFlags.Private | ts.ModifierFlags.Protected | ts.ModifierFlags.Static;
  if (!member.name || ts.isPrivateIdentifier(member.name) || flags & hidden) return false;
  // A setter says what its getter says.
  if (ts.isSetAccessorDeclaration(member)) return false;
  return !tagsOf(member).some(({ name }) => name === "internal");
}

function memberOf(member) {
  const name = member.name.getText();
  const description = descriptionOf(member);
  if (ts.isMethodDeclaration(member)) {
    return {
      kind: "method",
      name,
      description,
      parameters: member.parameters.map((parameter) => ({
        name: parameter.name.getText(),
        type: { text: typeOf(parameter) },
        ...(parameter.initializer ? { default: parameter.initializer.getText() } : {}),
      })),
      return: { type: { text: member.type?.getText() ?? "void" } },
    };
  }
  const attribute = attributeName(member, name);
  // A tag says what an expression means.
  const standard =
    tagsOf(member).find((tag) => tag.name === "default")?.text ?? member.initializer?.getText();
  const setter = member.parent.members.some(
    (m) => ts.isSetAccessorDeclaration(m) && m.name.getText() === name,
  );
  return {
    kind: "field",
    name,
    description,
    type: { text: typeOf(member) },
    ...(standard ? { default: standard } : {}),
    ...(ts.isGetAccessorDeclaration(member) && !setter ? { readonly: true } : {}),
    ...(attribute ? { attribute } : {}),
  };
}

/** The attribute that Lit makes for a property. */
function attributeName(member, name) {
  const decorator = ts
    .getDecorators(member)
    ?.map((d) => d.expression.getText())
    .find((d) => d.startsWith("property("));
  if (!decorator || /attribute: false/.test(decorator)) return undefined;
  return /attribute: "([^"]+)"/.exec(decorator)?.[1] ?? name.toLowerCase();
}

function attributeOf({ name, attribute, description, type, default: standard }) {
  return { name: attribute, fieldName: name, description, type, ...(standard ? { default: standard } : {}) };
}

function typeOf({ type, initializer }) {
  if (type) return type.getText();
  if (initializer?.kind === ts.SyntaxKind.TrueKeyword || initializer?.kind === ts.SyntaxKind.FalseKeyword)
    return "boolean";
  return initializer && ts.isStringLiteral(initializer) ? "string" : "number";
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await writeFile(join(root, "custom-elements.json"), await manifestText());
}
