//! Every kernel against its twin, on whatever Vulkan adapter there is: awkward sizes, every weight type, software and
//! hardware permutations, WebGPU's default limits.

#[expect(unreachable_pub, reason = "the harness is this test's own library")]
mod harness;
mod machine;
mod others;
mod products;
#[expect(clippy::print_stderr, reason = "it prints what it measured")]
mod rates;
mod shaders;
