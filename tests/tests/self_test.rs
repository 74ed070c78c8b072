//! The self-test of a device: right here, and able to say that something is wrong.

use pollster::block_on;
use zebra_runtime::engine::CacheFormat;
use zebra_runtime::engine::self_test::{Verdict, deviation, self_test};
use zebra_runtime::gpu::Gpu;
use zebra_runtime::weights::Preset;

#[test]
fn every_format_is_held_to_the_logits_of_pytorch() {
    let gpu = block_on(Gpu::open(None)).expect("an adapter");
    // What each format may differ by: the weights are exact in f16 and q4, whose embedding is q8; q8 rounds them all. The
    // fast kernels of both round the activations too.
    let cases = [(Preset::F32, 1e-5), (Preset::F16, 1e-5), (Preset::Q8, 0.03), (Preset::Q4, 0.03)];
    const ROUNDED: f64 = 0.08;
    for (preset, most) in cases {
        for (cache, plain) in [(CacheFormat::F32, false), (CacheFormat::F32, true), (CacheFormat::Q8, false)] {
            let found = block_on(deviation(&gpu, preset, cache, plain)).expect("it runs");
            println!("{preset}, cache {cache:?}, plain {plain}: {found:.2e}");
            let most = if cache == CacheFormat::Q8 { f64::max(most, 0.01) } else { most };
            let most = if most > 0.01 && !plain { ROUNDED } else { most };
            assert!(found < most, "{preset}, cache {cache:?}, plain {plain}: {found}");
        }
        assert_eq!(block_on(self_test(&gpu, preset, CacheFormat::Q8)).expect("it runs"), Verdict::Right);
    }
}
