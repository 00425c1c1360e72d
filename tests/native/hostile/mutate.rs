//! A small mutator of our own: what fuzzers do to bytes, and what they don't do to JSON. Seeded, so that a run can be
//! repeated.

use serde_json::{Value, json};

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not zero.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }
}

/// Numbers at the edges of what sizes are kept in.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    31,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    1 << 16,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 48,
    1 << 63,
    u64::MAX,
];

/// Changes some bytes, mostly few, sometimes the length; `from` are other seeds to take pieces of.
pub(crate) fn bytes(random: &mut Random, data: &mut Vec<u8>, from: &[Vec<u8>]) {
    for _ in 0..1 + random.below(4) {
        let n = data.len();
        if n == 0 {
            *data = random.bytes(64);
            continue;
        }
        // Heads are where structure is.
        let at = if random.below(2) == 0 { random.below(n.min(256)) } else { random.below(n) };
        match random.below(9) {
            0 => data[at] ^= 1 << random.below(8),
            1 => data[at] = random.next() as u8,
            2 => data[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            3 | 4 => {
                let edge = *random.pick(&EDGES);
                let width = *random.pick(&[2, 4, 8]);
                let both = [edge.to_le_bytes(), edge.swap_bytes().to_le_bytes()];
                let number = if random.below(2) == 0 { &both[0][..width] } else { &both[1][8 - width..] };
                let end = (at + width).min(n);
                data[at..end].copy_from_slice(&number[..end - at]);
            }
            5 => data.truncate(at),
            6 => {
                let new = random.bytes(16);
                data.splice(at..at, new);
            }
            7 => {
                let end = (at + 1 + random.below(32)).min(n);
                data.drain(at..end);
            }
            _ => {
                let other = random.pick(from);
                let start = random.below(other.len().max(1)).min(other.len());
                let end = (start + random.below(64)).min(other.len());
                let piece = other[start..end].to_vec();
                data.splice(at..at, piece);
            }
        }
    }
}

/// Changes some values of a document.
pub(crate) fn document(random: &mut Random, json: &mut Value) {
    for _ in 0..1 + random.below(3) {
        let mut at = &mut *json;
        // Down a random way, now and then stopping early.
        loop {
            let n = match &*at {
                Value::Array(list) => list.len(),
                Value::Object(map) => map.len(),
                _ => 0,
            };
            if n == 0 || random.below(8) == 0 {
                break;
            }
            let i = random.below(n);
            at = match at {
                Value::Array(list) => &mut list[i],
                Value::Object(map) => map.values_mut().nth(i).expect("as many as there are"),
                _ => unreachable!("it has children"),
            };
        }
        change(random, at);
    }
}

fn change(random: &mut Random, at: &mut Value) {
    match (random.below(5), &mut *at) {
        (0, Value::Object(map)) if !map.is_empty() => {
            let key = map.keys().nth(random.below(map.len())).expect("one of them").clone();
            map.remove(&key);
        }
        (0, Value::Array(list)) if !list.is_empty() => {
            let i = random.below(list.len());
            let twice = list[i].clone();
            list.push(twice);
        }
        (1, Value::Number(n)) => *at = json!(n.as_f64().unwrap_or(0.0) * [-1.0, 0.5, 2.0, 1e6][random.below(4)]),
        (2, Value::Number(n)) => *at = json!(n.as_u64().unwrap_or(0).wrapping_add(1)),
        (1 | 2, Value::String(s)) => s.push_str(["", "\u{0}", "\u{e9}", "<r0>", "x", "../"][random.below(6)]),
        (3, _) => *at = json!(*random.pick(&EDGES)),
        _ => {
            *at = random
                .pick(&[
                    json!(null),
                    json!(true),
                    json!(""),
                    json!([]),
                    json!({}),
                    json!(-1),
                    json!(0.5),
                    json!("x"),
                    json!(1e300),
                ])
                .clone();
        }
    }
}
