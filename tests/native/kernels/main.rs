//! Every kernel against its twin, on whatever Vulkan adapter there is: awkward sizes, every weight type, software and
//! hardware permutations, WebGPU's default limits.

mod coverage;
mod harness;
mod machine;
mod others;
mod products;
mod rates;
mod shaders;
mod units;
