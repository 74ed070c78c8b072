//! `mla_attend_coop.wgsl`: what `mla_attend.wgsl` is tested with, where its rows fit.

use std::time::{Duration, Instant};

use pollster::block_on;
use zebra_runtime::gpu::{Dispatch, Gpu, Limits};
use zebra_runtime::kernels::Target;
use zebra_runtime::kernels::mla_attend::{MlaAttend, Spans};
use zebra_runtime::kernels::mla_attend_coop::{MlaAttendCoop, fits};
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_tests::compare::Worst;
use zebra_tests::harness::{Bench, StepBuilder, on_gpu, report, shape_of};
use zebra_tests::random::Random;

use super::mla_attend::{Case, cases, check};
use super::{Input, table, target};

fn twin(kernel: &MlaAttend<'_>, gpu: &Gpu, target: Target) -> Dispatch {
    MlaAttendCoop {
        step: kernel.step,
        shape: kernel.shape,
        heads: kernel.heads,
        spans: kernel.spans,
        query: kernel.query,
        latents: kernel.latents,
        sums: kernel.sums,
        weights: kernel.weights,
    }
    .dispatch("test", gpu.cooperative().expect("cooperative matrices"), target)
}

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    // Queries, weights and what int8 rows unpack to are rounded to f16, by 2^-11 at most: some 2e-4 of a score's spread,
    // by which a weight is off, relatively, and of a weight. Latents are the weighted mean of few rows or of many, which
    // is smaller than what it is made of: the worst of some 1e6 values is some ten times as far off.
    let error = 5e-3 + 5e-4 * f64::from(case.scores);
    check(gpu, case, input, [error, error], |kernel, target| twin(kernel, gpu, target))
}

#[test]
fn mla_attend_coop() {
    let offered = on_gpu(|gpu| (gpu.description().name.clone(), gpu.cooperative().map(|m| (m, gpu.limits()))));
    let (_, Some((matrices, limits))) = offered else {
        report(&format!("mla_attend_coop: NOT RUN: {} has no cooperative matrices", offered.0));
        return;
    };
    let mut cases: Vec<Case> = cases().into_iter().filter(|c| fits(c.shape(), matrices, &limits)).collect();
    // Less memory is planned with where that is enough.
    for case in &mut cases {
        let less = Limits { workgroup_memory: 38 << 10, ..limits };
        if case.memory != u32::MAX {
            case.memory = if fits(case.shape(), matrices, &less) { less.workgroup_memory } else { u32::MAX };
        }
    }
    table("mla_attend_coop", cases, run);
}

/// What it reaches, by timestamps, and what `mla_attend.wgsl` does: `cargo test --release -p zebra-tests --test kernels
/// mla_attend_coop_speed -- --ignored`.
#[test]
#[ignore = "a measurement, for a GPU"]
fn mla_attend_coop_speed() {
    on_gpu(|gpu| {
        gpu.cooperative().expect("cooperative matrices");
        for (latent, rope, heads) in [(128, 32, 32), (128, 64, 24), (160, 64, 32)] {
            for (format, rows, depth) in [
                (CacheFormat::F16, 1, 100),
                (CacheFormat::F16, 1, 2048),
                (CacheFormat::F16, 1, 32_768),
                (CacheFormat::Q8, 1, 100),
                (CacheFormat::Q8, 1, 32_768),
                (CacheFormat::F16, 8, 32_768),
                (CacheFormat::F16, 512, 2048),
                (CacheFormat::F16, 512, 32_768),
                (CacheFormat::Q8, 512, 32_768),
            ] {
                if latent + rope > 160 && (depth == 2048 || rows == 8) {
                    continue;
                }
                let context = 32_768;
                let shape = CacheShape { format, latent, rope, context };
                let target = target(gpu, true, rows as u32);
                let step = StepBuilder::new().segment(0, depth - rows, rows).build();
                let spans = if rows > 8 { Spans::wide(context) } else { Spans::narrow(context) };
                let room = rows * spans.of_step(rows);
                let bench = Bench::new(gpu);
                let step_buffer = bench.step(&step, rows as u32);
                let mut random = Random::new(1);
                let queries = random.normals(heads * shape.row_quads() * 4, 0.1).repeat(rows);
                // Any words that are no NaN: what is computed does not matter.
                let words = vec![0x2c01_3402; context * shape.row_words()];
                let kernel = MlaAttend {
                    step: &step_buffer,
                    shape,
                    heads,
                    spans,
                    query: &bench.floats("query", &queries),
                    latents: &bench.words("latents", &words),
                    sums: &bench.output("sums", room * heads * shape.latent_quads() * 4),
                    weights: &bench.output("weights", room * heads * 2),
                };
                let mut took = Vec::new();
                let plain = kernel.dispatch("test", target);
                for dispatch in [plain, twin(&kernel, gpu, target)] {
                    let dispatches = vec![dispatch; 7];
                    bench.run(&dispatches[..1], shape_of(&step)).expect("it runs");
                    let program = block_on(gpu.compile(&dispatches)).expect("it compiles");
                    // A card that had nothing to do while the buffers were made runs slowly at first.
                    let start = Instant::now();
                    while start.elapsed() < Duration::from_millis(200) {
                        block_on(program.run(gpu, shape_of(&step))).expect("it runs");
                    }
                    let times = block_on(program.profile(gpu, shape_of(&step))).expect("timestamps");
                    let mut times: Vec<f64> = times.iter().map(|t| t.nanoseconds / 1e3).collect();
                    times.sort_by(f64::total_cmp);
                    took.push(times[3]);
                }
                let positions: usize = (depth - rows + 1..=depth).sum();
                let flops = 2.0 * (positions * heads * (2 * latent + rope)) as f64;
                report(&format!(
                    "{latent}/{rope} x {heads} {format:?} {rows} rows at {depth}: f32 {:.1} us, {:.1} TFLOP/s; \
                     coop {:.1} us, {:.1} TFLOP/s",
                    took[0],
                    flops / took[0] / 1e6,
                    took[1],
                    flops / took[1] / 1e6
                ));
            }
        }
    });
}
