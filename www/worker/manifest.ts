/** A pack's description, `model.json`: foreign text until it has been checked. */

import { GromaError } from "../engine/error.js";
import { memoryOf } from "./memory.js";

/** A piece of a file as the host serves it. */
export interface Part {
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}

/** A file of the pack, cut into parts that follow each other. */
export interface PackFile {
  readonly name: string;
  readonly size: number;
  readonly parts: readonly Part[];
}

/** A pack. */
export interface Manifest {
  readonly name: string;
  readonly licence: readonly string[];
  readonly quantisation: Readonly<Record<string, string>>;
  readonly files: readonly PackFile[];
  readonly total: number;
  /** Bytes of memory that it takes while it works. */
  readonly memory: number;
  /** The text itself, for the engine. */
  readonly text: string;
}

// A name must be one plain path segment: it becomes part of an address.
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const MIB = 1024 * 1024;
// The engine's own limits (`crate/pack/manifest.rs`): what it would refuse is not downloaded.
const MAX_PART = 24 * MIB;
const MAX_TOKENIZER = 64 * MIB;
const MAX_FILES = 64;
const MAX_PARTS = 4096;

/** The longest description, in bytes. */
export const MAX_MANIFEST = 4 * MIB;

/** Reads a description; whatever is wrong with it is said with its place. */
export function parseManifest(text: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalid("it is not JSON");
  }
  const root = record(value, "it");
  if (root.format !== "groma-pack") throw invalid("its format is not “groma-pack”");
  if (root.version !== 1) throw invalid(`its version is ${JSON.stringify(root.version)}, this page reads 1`);
  const config = record(root.config, "config");
  record(root.generation, "generation");
  const files = list(root.files, "files", MAX_FILES).map(file);
  unique(
    files.map((f) => f.name),
    "files",
  );
  unique(
    files.flatMap((f) => f.parts.map((p) => p.name)),
    "parts",
  );
  const total = files.reduce((sum, f) => sum + f.size, 0);
  if (root.total !== total) {
    throw invalid(`its files have ${total} bytes, its total says ${JSON.stringify(root.total)}`);
  }
  return {
    name: typeof root.name === "string" && root.name ? root.name : "model",
    licence: Array.isArray(root.licence) ? root.licence.map(String) : [],
    quantisation: Object.fromEntries(
      Object.entries(root.quantisation ? record(root.quantisation, "quantisation") : {}).map(([k, v]) => [
        k,
        String(v),
      ]),
    ),
    files,
    total,
    memory: memoryOf(config, total),
    text,
  };
}

/** All parts of a pack, each content once. */
export function partsOf(manifest: Manifest): Part[] {
  return [...new Map(manifest.files.flatMap((f) => f.parts).map((p) => [p.sha256, p])).values()];
}

function file(value: unknown, at: number): PackFile {
  const where = `files[${at}]`;
  const raw = record(value, where);
  const tokenizer = raw.name === "tokenizer.json";
  const whole = part(raw, where, tokenizer ? MAX_TOKENIZER : Number.MAX_SAFE_INTEGER);
  const parts = list(raw.parts, `${where}.parts`, MAX_PARTS).map((p, i) => {
    const place = `${where}.parts[${i}]`;
    return part(record(p, place), place, MAX_PART);
  });
  const sum = parts.reduce((bytes, p) => bytes + p.size, 0);
  if (sum !== whole.size)
    throw invalid(`the parts of ${whole.name} have ${sum} bytes, the file ${whole.size}`);
  return { name: whole.name, size: whole.size, parts };
}

function part(raw: Record<string, unknown>, where: string, max: number): Part {
  const { name, size, sha256 } = raw;
  if (typeof name !== "string" || !NAME.test(name)) throw invalid(`${where} has no proper name`);
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 1 || size > max) {
    throw invalid(`${where} (${name}) has no proper size`);
  }
  if (typeof sha256 !== "string" || !SHA256.test(sha256))
    throw invalid(`${where} (${name}) has no proper sha256`);
  return { name, size, sha256 };
}

function record(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw invalid(`${where} is no object`);
  return value as Record<string, unknown>;
}

function list(value: unknown, where: string, max: number): unknown[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > max)
    throw invalid(`${where} is no proper list`);
  return value;
}

function unique(names: readonly string[], what: string): void {
  if (new Set(names).size < names.length) throw invalid(`two of its ${what} have the same name`);
}

/** Says what is wrong with a description. */
export function invalid(what: string): GromaError {
  return new GromaError("pack-invalid", `This is no model that this page can read: ${what}.`);
}
