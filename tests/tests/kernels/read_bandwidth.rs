//! `read_bandwidth.wgsl`: it reads everything, once, or its figure is worth nothing.

use zebra_runtime::gpu::StepShape;
use zebra_runtime::kernels::read_bandwidth::ReadBandwidth;
use zebra_tests::harness::{Bench, on_gpu, report};
use zebra_tests::random::Random;

#[test]
fn every_word_is_read_once() {
    on_gpu(|gpu| {
        let mut random = Random::new(1);
        for (quads, workgroups) in [(0, 1), (1, 1), (255, 1), (257, 1), (1025, 1), (5000, 2), (4096, 4), (100, 3)] {
            let words: Vec<u32> = (0..4 * quads + 4).map(|_| random.bits() as u32).collect();
            let bench = Bench::new(gpu);
            let sums = bench.output("sums", ReadBandwidth::words(workgroups));
            let data = bench.words("data", &words);
            let read = ReadBandwidth { data: &data, bytes: 16 * quads as u64, workgroups, sums: &sums };
            let shape = StepShape::default();
            bench.run(&[read.dispatch("test")], shape).unwrap_or_else(|e| panic!("{quads} quads: {e}"));
            let sum = |words: &[u32]| words.iter().fold(0u32, |sum, w| sum.wrapping_add(*w));
            let got = sum(&bench.read_words(&sums));
            assert_eq!(got, sum(&words[..4 * quads]), "{quads} quads, {workgroups} workgroups");
            // The control: a quad more would have another sum.
            assert_ne!(got, sum(&words), "{quads} quads, {workgroups} workgroups");
        }
        report("read_bandwidth: 8 cases read every word once");
    });
}
