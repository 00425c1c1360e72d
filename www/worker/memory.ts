/** How much memory a model takes while it works, out of its description: what a reader should know before the download. */

// What an answer reads and writes besides image and regions: the words around them, a question, an answer of the usual length.
const WORDS = 96;
const ANSWER = 256;
// A region's number and its features.
const REGION_TOKENS = 2;
// A cache grows by this many positions (`crate/session/text.rs`).
const GROWTH = 256;
const F32 = 4;
const MIB = 1024 * 1024;
// Windows of a convolution are written out as rows, as many as this holds at a time.
const WINDOWS = 16 * MIB;
// What may be held besides weights, cache and largest value, as a factor on their sum (docs/performance.md: 1.20 measured).
const HELD = 1.25;

type Section = Readonly<Record<string, unknown>>;

/**
 * Bytes that a model takes while it answers about a photo: weights, the cache of keys and values, the largest value between two
 * operations, and what is held besides. `config` is upstream's, of which every key may be absent or of another kind.
 */
export function memoryOf(config: Section, weights: number): number {
  const perceiver = section(config, "perceiver_cfg");
  const vision = section(perceiver, "vis_encoder_cfg");
  const llm = section(config, "llm_cfg");

  const patches = Math.floor(number(config, "image_size", 448) / number(vision, "patch_size", 16));
  const imageTokens = Math.floor(patches / number(config, "image_token_merge", 2)) ** 2;
  const heads = number(llm, "num_attention_heads", 32);
  const width = number(llm, "head_dim", number(llm, "hidden_size", 4096) / heads);
  const keys = number(llm, "num_key_value_heads", heads) * width;
  const wanted = imageTokens + REGION_TOKENS * number(config, "max_region_num", 100) + WORDS + ANSWER;
  const positions = Math.min(wanted, number(llm, "max_position_embeddings", 2048));
  const rows = Math.ceil(positions / GROWTH) * GROWTH;
  const cache = 2 * number(llm, "num_hidden_layers", 32) * rows * keys * F32;

  const hidden = number(vision, "hidden_size", 768);
  const inner = hidden * Math.max(3, number(vision, "mlp_ratio", 4));
  const activation = Math.max(WINDOWS, (patches ** 2 + 1) * inner * F32);
  return Math.round((weights + cache + activation) * HELD);
}

function section(of: Section, key: string): Section {
  const value = of[key];
  return typeof value === "object" && value !== null ? (value as Section) : {};
}

function number(of: Section, key: string, standard: number): number {
  const value = of[key];
  return typeof value === "number" && Number.isFinite(value) && value > 0 ? value : standard;
}
