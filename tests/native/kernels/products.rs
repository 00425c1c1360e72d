//! Matrix products in every weight type: many rows, one row, the decoder's fused forms, convolutions.

use groma::tensor::gpu::Options;
use groma::tensor::gpu::variants;
use groma::tensor::ops::{self, Act, Cache, Geometry, Linear, Projection, Tables};
use groma::tensor::{DType, ops::qkv::rope_table};

use crate::harness::{Bench, Case, FUNCTIONS, SUMS, case, gpu, table, table_on};

const TYPES: [DType; 5] = [DType::F32, DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_1];

/// Row lengths that a type allows: no multiple of 4, of 8, of a tile; one block, an odd number of blocks.
fn lengths(dtype: DType) -> &'static [usize] {
    if dtype.block() == 1 { &[3, 20, 37, 130] } else { &[32, 96, 576] }
}

fn linear(dtype: DType, rows: usize, k: usize, out: usize) -> Case {
    case(format!("linear {dtype} {rows}x{k}x{out}"), move |b| {
        let x = b.f32(&[rows, k]);
        let w = b.weight(&[out, k], dtype);
        let y = ops::linear(&mut b.plan, x, Linear::new(&w, None))?;
        b.keep(y);
        Ok(())
    })
}

#[test]
pub(crate) fn linear_in_every_type() {
    let mut cases = Vec::new();
    for dtype in TYPES {
        for k in lengths(dtype) {
            for (rows, out) in [(1, 1), (1, 7), (1, 130), (2, 5), (9, 65), (70, 130)] {
                cases.push(linear(dtype, rows, *k, out));
            }
        }
    }
    table(SUMS, cases);
}

/// Enough results for the tiles of large products, in the last of which rows and columns are missing.
pub(crate) fn wide() -> Vec<Case> {
    let short = |dtype| lengths(dtype).iter().filter(|k| **k < 100).map(move |k| linear(dtype, 1290, *k, 1411));
    TYPES.into_iter().flat_map(short).collect()
}

#[test]
#[expect(clippy::print_stderr, reason = "what is left out is told")]
fn linear_in_wide_tiles() {
    let device = gpu(Options { software_kernels: Some(false), default_limits: false, ..Options::from_env() });
    if device.traits().shared < variants::WIDE {
        let name = &device.info().name;
        assert!(!name.contains("llvmpipe"), "{name} has room for wide tiles");
        eprintln!("wide tiles are not tested: {name} has no room for them");
        return;
    }
    table_on(&[("wide", device)], SUMS, wide(), 1);
}

#[test]
pub(crate) fn epilogues() {
    let mut cases = Vec::new();
    for rows in [1, 9] {
        for act in [Act::None, Act::Relu, Act::Gelu, Act::Silu] {
            for large in [1.0, 1e4] {
                cases.push(case(format!("epilogue {rows} {act:?} {large}"), move |b| {
                    let x = b.scaled(&[rows, 36], large);
                    let w = b.weight(&[67, 36], DType::F32);
                    let (bias, scale) = (b.vector(67), b.vector(67));
                    let residual = b.f32(&[rows, 67]);
                    let layer = Linear::new(&w, Some(&bias)).act(act).scale(&scale).residual(residual);
                    let y = ops::linear(&mut b.plan, x, layer)?;
                    b.keep(y);
                    Ok(())
                }));
            }
        }
    }
    table(SUMS, cases);
}

#[test]
fn weights_in_slices() {
    let mut cases = Vec::new();
    for dtype in TYPES {
        for rows in [1, 9] {
            cases.push(linear(dtype, rows, 96, 131));
            cases.push(gate_up(dtype, rows, 96, 66));
            cases.push(qkv(dtype, rows, 3, 1, 16));
        }
        cases.push(embed(dtype, 96));
    }
    // 4 KiB hold ten rows of f32
    let small =
        |software| gpu(Options { software_kernels: Some(software), binding: Some(8192), ..Options::from_env() });
    table_on(&[("software in slices", small(true)), ("hardware in slices", small(false))], FUNCTIONS, cases, 1);
}

fn gate_up(dtype: DType, rows: usize, hidden: usize, inner: usize) -> Case {
    case(format!("gate_up {dtype} {rows}x{hidden}x{inner}"), move |b| {
        let x = b.scaled(&[rows, hidden], 30.0);
        let norm = b.vector(hidden);
        let w = b.weight(&[2 * inner, hidden], dtype);
        let y = ops::gate_up(&mut b.plan, x, Some((&norm, 1e-5)), &w)?;
        b.keep(y);
        Ok(())
    })
}

#[test]
pub(crate) fn gated_feed_forward() {
    let mut cases = Vec::new();
    for dtype in TYPES {
        for rows in [1, 6] {
            cases.push(gate_up(dtype, rows, 64, 97));
        }
        // enough blocks to be shared by threads
        cases.push(gate_up(dtype, 1, 256, 21));
    }
    cases.push(gate_up(DType::F16, 1, 37, 20));
    cases.push(gate_up(DType::F32, 1, 37, 20));
    table(SUMS, cases);
}

/// A cache that holds something already, and a state that says so.
fn cache(b: &mut Bench, position: u32, rows: usize, kv: usize, capacity: usize) -> Cache {
    let (k, v) = (b.rand.numbers(capacity * kv), b.rand.numbers(capacity * kv));
    let k = b.device.tensor_f32("keys", &[capacity, kv], &k).expect("fits");
    let v = b.device.tensor_f32("values", &[capacity, kv], &v).expect("fits");
    let state = b.ids_tensor(&[position, u32::try_from(rows).expect("small"), 0, 0]);
    Cache { k, v, state }
}

fn qkv(dtype: DType, rows: usize, heads: usize, kv_heads: usize, width: usize) -> Case {
    qkv_of(64, dtype, rows, heads, kv_heads, width)
}

fn qkv_of(hidden: usize, dtype: DType, rows: usize, heads: usize, kv_heads: usize, width: usize) -> Case {
    case(format!("qkv {dtype} {rows} rows of {hidden} {heads}/{kv_heads}x{width}"), move |b| {
        let x = b.scaled(&[rows, hidden], 100.0);
        let rope = rope_table(40, width, 10000.0);
        let w = Projection {
            norm: b.vector(hidden),
            eps: 1e-5,
            weight: b.weight(&[(heads + 2 * kv_heads) * width, hidden], dtype),
            rope: b.device.tensor_f32("rope", &[40, width], &rope)?,
        };
        let cache = cache(b, 11, rows, kv_heads * width, 40);
        let q = ops::qkv(&mut b.plan, x, &w, &cache, heads, kv_heads, width)?;
        b.keep(q);
        b.keep_tensor(&cache.k);
        b.keep_tensor(&cache.v);
        Ok(())
    })
}

#[test]
pub(crate) fn way_into_the_cache() {
    let mut cases = Vec::new();
    for dtype in TYPES {
        for rows in [1, 7] {
            cases.push(qkv(dtype, rows, 9, 3, 16));
        }
        cases.push(qkv_of(256, dtype, 1, 3, 1, 16));
    }
    cases.push(qkv(DType::F32, 1, 3, 3, 20));
    cases.push(qkv_of(37, DType::F32, 1, 3, 1, 16));
    cases.push(qkv_of(37, DType::F16, 1, 3, 1, 16));
    table(SUMS, cases);
}

fn embed(dtype: DType, hidden: usize) -> Case {
    case(format!("embed {dtype} {hidden}"), move |b| {
        let tokens = b.weight(&[50, hidden], dtype);
        let added = b.weight(&[7, hidden], dtype);
        let image = b.rand.numbers(5 * hidden);
        let image = b.device.tensor_f32("image", &[5, hidden], &image)?;
        let regions = b.rand.numbers(3 * hidden);
        let regions = b.device.tensor_f32("regions", &[3, hidden], &regions)?;
        let codes = b.ids_tensor(&[9, 0, 49, 50, 56, 1 << 28, (1 << 28) + 4, (2 << 28) + 2, 17]);
        let tables = Tables { tokens, added: Some(added), image: Some(image), regions: Some(regions) };
        let y = ops::embed(&mut b.plan, &codes, 1, 8, &tables)?;
        b.keep(y);
        Ok(())
    })
}

#[test]
pub(crate) fn embeddings() {
    let mut cases: Vec<Case> = TYPES.into_iter().map(|t| embed(t, 64)).collect();
    cases.push(embed(DType::F16, 37));
    cases.push(embed(DType::F32, 37));
    table(SUMS, cases);
}

fn conv(dtype: DType, channels: usize, out: usize, geometry: Geometry) -> Case {
    let g = geometry;
    case(format!("conv2d {dtype} {channels} to {out} {g:?}"), move |b| {
        let x = b.f32(&[g.batch * g.height * g.width, channels]);
        let w = b.weight(&[out, channels * g.kernel * g.kernel], dtype);
        let bias = b.vector(out);
        let y = ops::conv2d(&mut b.plan, x, &w, Some(&bias), g)?;
        b.keep(y);
        Ok(())
    })
}

#[test]
pub(crate) fn convolutions() {
    let g = Geometry { batch: 1, height: 7, width: 5, kernel: 3, stride: 1, padding: 1 };
    let mut cases = Vec::new();
    for dtype in TYPES {
        cases.push(conv(dtype, 32, 20, g));
        cases.push(conv(dtype, 32, 9, Geometry { batch: 3, stride: 2, ..g }));
    }
    // more windows than lie in memory at once
    cases.push(conv(DType::F16, 64, 4, Geometry { batch: 2, height: 61, width: 67, ..g }));
    cases.push(conv(DType::F16, 3, 5, Geometry { padding: 0, ..g }));
    cases.push(conv(DType::F32, 5, 5, Geometry { kernel: 1, padding: 0, ..g }));
    cases.push(case("conv2d of pixels", |b| {
        let g = Geometry { batch: 1, height: 28, width: 42, kernel: 14, stride: 14, padding: 0 };
        let x = b.f32(&[3, 28, 42]);
        let w = b.weight(&[20, 3 * 14 * 14], DType::F16);
        let bias = b.vector(20);
        let y = ops::conv2d_pixels(&mut b.plan, x, &w, &bias, g)?;
        b.keep(y);
        Ok(())
    }));
    cases.push(case("conv2d summed", move |b| {
        let x: Vec<_> = (0..3).map(|_| b.f32(&[35, 8])).collect();
        let w: Vec<_> = (0..3).map(|_| b.weight(&[12, 72], DType::F16)).collect();
        let bias: Vec<_> = (0..3).map(|_| b.vector(12)).collect();
        let (w, bias): (Vec<_>, Vec<_>) = (w.iter().collect(), bias.iter().collect());
        let y = ops::conv2d_sum(&mut b.plan, &x, &w, &bias, g, Act::Relu)?;
        b.keep(y);
        Ok(())
    }));
    for dtype in TYPES {
        cases.push(case(format!("conv_transpose {dtype}"), move |b| {
            let x = b.f32(&[15, 20]);
            let w = b.weight(&[20, 4 * 24], dtype);
            let bias = b.vector(24);
            let y = ops::conv_transpose2x2(&mut b.plan, x, &w, &bias, 3, 5, Act::Gelu)?;
            b.keep(y);
            Ok(())
        }));
    }
    table(SUMS, cases);
}

#[test]
pub(crate) fn attention() {
    let mut cases = Vec::new();
    cases.push(case("attention that is sure of itself", |b| {
        let all = b.scaled(&[40, 96], 100.0);
        let columns = |first| ops::Columns { value: all, first };
        let y = ops::attention(&mut b.plan, columns(0), columns(32), columns(64), 2, 16)?;
        b.keep(y);
        Ok(())
    }));
    for width in [16, 20, 32, 64, 128, 10, 18, 50, 90] {
        for (q_rows, k_rows) in [(1, 5), (17, 33), (35, 77)] {
            cases.push(case(format!("attention {width} {q_rows}x{k_rows}"), move |b| {
                let inner = 3 * width;
                let all = b.scaled(&[k_rows, 2 * inner], 3.0);
                let q = b.scaled(&[q_rows, inner], 3.0);
                let columns = |first| ops::Columns { value: all, first };
                let y = ops::attention(&mut b.plan, ops::Columns::all(q), columns(0), columns(inner), 3, width)?;
                b.keep(y);
                Ok(())
            }));
        }
    }
    for (heads, kv_heads, width) in
        [(9, 3, 64), (3, 3, 20), (2, 1, 10), (4, 1, 128), (2, 2, 16), (2, 1, 18), (2, 1, 50), (2, 1, 90)]
    {
        for rows in [1, 5, 20] {
            for position in [0, 3, 70, 200] {
                cases.push(case(format!("cached {heads}/{kv_heads}x{width}, {rows} rows at {position}"), move |b| {
                    let q = b.scaled(&[rows, heads * width], 3.0);
                    let cache = cache(b, position, rows, kv_heads * width, 220);
                    let y = ops::cached_attention(&mut b.plan, q, &cache, heads, kv_heads, width)?;
                    b.keep(y);
                    Ok(())
                }));
            }
        }
    }
    table(FUNCTIONS, cases);
}
