//! Whether the tables hold every permutation that there is against its twin.

use std::collections::BTreeSet;

use groma::tensor::gpu::kernels;
use groma::tensor::gpu::variants::{self, Traits};

use crate::harness::{listed, permutations};
use crate::{others, products};

/// Families whose kernels no operation of a model records, and the tests (of `machine.rs`) that run all of them.
const BESIDES: [(&str, &str); 2] = [("planes", "streamed_tensors_equal_whole_ones"), ("probe", "a_device_is_probed")];

#[test]
fn tables_run_every_permutation() {
    let mut run = listed(&[
        products::linear_in_every_type,
        products::epilogues,
        products::gated_feed_forward,
        products::way_into_the_cache,
        products::embeddings,
        products::convolutions,
        products::attention,
        others::norms,
        others::movements,
        others::sums_and_maps,
        others::deformable_attention,
        others::boxes,
        others::choices,
    ]);
    let large = Traits { software: false, shared: variants::WIDE, ..Traits::DEFAULT };
    run.extend(products::wide().iter().flat_map(|case| permutations(case, large)));
    let besides = |name: &str| BESIDES.iter().any(|(family, _)| name.starts_with(&format!("{family}_")));
    let all = kernels::all();
    let left: BTreeSet<_> = all.iter().map(|p| p.name).filter(|n| !run.contains(n) && !besides(n)).collect();
    assert!(left.is_empty(), "no table runs {left:?}");
}
