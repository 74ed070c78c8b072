//! The self-test of a device: right here, and able to say that something is wrong.

use pollster::block_on;
use zebra_runtime::engine::KernelChoice::{Auto, Measured, Plain};
use zebra_runtime::engine::self_test::{Verdict, deviation, self_test};
use zebra_runtime::engine::{CacheFormat, Twins};
use zebra_runtime::gpu::Gpu;
use zebra_runtime::weights::Preset;

/// What the fast kernels of quantized weights may differ by.
const ROUNDED: f64 = 0.08;

#[test]
fn every_format_is_held_to_the_logits_of_pytorch() {
    let gpu = block_on(Gpu::open(None)).expect("an adapter");
    // What each format may differ by: the weights are exact in f16 and q4, whose embedding is q8; q8 rounds them all. The
    // fast kernels of both round the activations too.
    let cases = [(Preset::F32, 1e-5), (Preset::F16, 1e-5), (Preset::Q8, 0.03), (Preset::Q4, 0.03)];
    for (preset, most) in cases {
        for (cache, kernels) in [(CacheFormat::F32, Auto), (CacheFormat::F32, Plain), (CacheFormat::Q8, Auto)] {
            let found = block_on(deviation(&gpu, preset, cache, kernels)).expect("it runs");
            println!("{preset}, cache {cache:?}, {kernels:?}: {found:.2e}");
            let most = if cache == CacheFormat::Q8 { f64::max(most, 0.01) } else { most };
            let most = if most > 0.01 && kernels == Auto { ROUNDED } else { most };
            assert!(found < most, "{preset}, cache {cache:?}, {kernels:?}: {found}");
        }
        assert_eq!(block_on(self_test(&gpu, preset, CacheFormat::Q8)).expect("it runs"), Verdict::Right);
    }
}

#[test]
fn a_twin_that_is_left_out_leaves_the_logits_right() {
    let gpu = block_on(Gpu::open(None)).expect("an adapter");
    let all = Twins::offered(&gpu);
    let mut choices: Vec<Twins> = all.axes().iter().filter(|axis| axis.on).map(|axis| axis.without).collect();
    // None of them, and still not the plain order.
    choices.push(Twins { plain: false, ..Twins::plain() });
    for twins in choices {
        for (preset, rounded) in [(Preset::F16, 0.01), (Preset::Q8, ROUNDED), (Preset::Q4, ROUNDED)] {
            let most = if twins.matvec_i8 || twins.matmul_i8 { rounded } else { f64::min(rounded, 0.03) };
            let found = block_on(deviation(&gpu, preset, CacheFormat::Q8, Measured(twins))).expect("it runs");
            println!("{preset}, {twins}: {found:.2e}");
            assert!(found < most, "{preset}, {twins}: {found}");
        }
    }
    assert_eq!(gpu.allocated().values().sum::<u64>(), 0, "it leaves no memory behind");
}
