//! `gqa_attend.wgsl` on rows whose keys and values are whole groups, by what `mla_attend.wgsl` is tested with: teams that
//! exchange by subgroup operations, and through workgroup memory.

use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::gqa_attend::{dispatch, fits, spans};
use zebra_runtime::kernels::mla_attend::Spans;
use zebra_runtime::kernels::mla_latent::{CacheFormat, CacheShape};
use zebra_runtime::kernels::{Target, Twins};
use zebra_tests::compare::Worst;
use zebra_tests::harness::{on_gpu, report};

use super::mla_attend::{Case, Check, check};
use super::mla_latent::FORMATS;
use super::{Input, table};

fn run(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    run_with(gpu, case, input, false)
}

fn run_subgroups(gpu: &Gpu, case: &Case, input: Input) -> Result<Worst, String> {
    run_with(gpu, case, input, true)
}

fn run_with(gpu: &Gpu, case: &Case, input: Input, subgroups: bool) -> Result<Worst, String> {
    // As mla_attend.wgsl in f32. In q8 a number of a query is rounded by 1 / 64,516 of the largest at most, evenly: some
    // 2e-5 of its deviation, and a score by as much of the scores'. All values of a row are off by the same scores': their
    // mean square is some rows' worst, of 1e4 four times as much, and three times that is allowed to one.
    let scores = f64::from(case.scores.max(5.0));
    let error = if case.shape.format == CacheFormat::Q8 { 2.5e-4 } else { 2e-6 } * scores;
    let how = Check { last_rows: 1, rounded: |v| v, rounded_rows: |v| v, errors: [error, error] };
    check(gpu, case, input, how, |kernel, target| {
        let twins = Twins { subgroups: subgroups && gpu.has_subgroups(), ..target.twins };
        let target = Target { twins, ..target };
        assert!(fits(case.shape, target), "{case:?}");
        dispatch(kernel, "test", target)
    })
}

/// Contexts and their spans: less than one; as many as fill a GPU; one of many tiles; of some; spans that end within a
/// tile of the lanes; one tile and one position; as a batch has them.
fn cut(shape: CacheShape, j: usize) -> (usize, Spans) {
    let own = |context, all| (context, spans(CacheShape { context, ..shape }, all));
    match j {
        0 => own(700, Spans::narrow(700)),
        1 => (300, Spans::one()),
        2 => (300, Spans::new(300, 5, u32::MAX)),
        3 => own(129, Spans::narrow(129)),
        4 => own(600, Spans::wide(600)),
        _ => own(5, Spans::narrow(5)),
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // (kv heads, heads of each, head_dim): SmolLM2, Llama 1B and 8B, Minitron 4B; every other size; heads that are no whole
    // fours, more than a workgroup has.
    let shapes = [
        (3, 3, 64),
        (8, 4, 128),
        (2, 4, 64),
        (1, 1, 128),
        (1, 8, 128),
        (2, 5, 64),
        (2, 3, 128),
        (1, 6, 96),
        (4, 2, 32),
        (1, 20, 32),
        (2, 2, 16),
        (1, 4, 80),
    ];
    for (i, (kv_heads, group, head_dim)) in shapes.into_iter().enumerate() {
        for (f, format) in FORMATS.into_iter().enumerate() {
            for j in 0..6 {
                // What is no whole group has a kernel in f32 alone.
                if (i + j + f) % 3 > 0 || head_dim % 32 > 0 && format != CacheFormat::F32 {
                    continue;
                }
                let shape = CacheShape::gqa(format, kv_heads, head_dim, head_dim, 1);
                let (context, spans) = cut(shape, j);
                let scores = [2.0, 0.1, 20.0][(i + j) % 3];
                let memory = [u32::MAX, 16384][(i + j + f) % 2];
                cases.push(Case {
                    shape: CacheShape { context, ..shape },
                    heads: kv_heads * group,
                    spans,
                    scores,
                    memory,
                });
            }
        }
    }
    let shape = CacheShape::gqa(CacheFormat::Q8, 2, 128, 128, 3000);
    let long = Case { shape, heads: 8, spans: spans(shape, Spans::narrow(3000)), scores: 5.0, memory: u32::MAX };
    cases.push(long);
    cases.push(Case { spans: Spans::one(), ..long });
    // Weights of which all but a few are zero: maxima that rise by much.
    cases.push(Case { scores: 200.0, spans: Spans::one(), ..long });
    let shape = CacheShape { format: CacheFormat::F16, ..shape };
    cases.push(Case { shape, scores: 2.0, ..long });
    cases
}

#[test]
fn gqa_attend() {
    table("gqa_attend", cases(), run);
}

#[test]
fn gqa_attend_subgroups() {
    let (name, offered) = on_gpu(|gpu| (gpu.description().name.clone(), gpu.has_subgroups()));
    if !offered {
        report(&format!("gqa_attend by subgroups: NOT RUN: {name} has none"));
        return;
    }
    table("gqa_attend by subgroups", cases(), run_subgroups);
}

/// What buffers have room for is by the spans of all kernels.
#[test]
fn spans_are_no_more_than_there_is_room_for() {
    for context in [1, 31, 32, 127, 128, 129, 4096, 8192, 131_072] {
        for kv_heads in [1, 3, 8, 64] {
            let shape = CacheShape::gqa(CacheFormat::Q8, kv_heads, 64, 64, context);
            for all in [Spans::narrow(context), Spans::wide(context)] {
                let own = spans(shape, all);
                for rows in [1, 8, 48, 512] {
                    assert!(own.room(rows) <= all.room(rows), "{context} {kv_heads} {rows}");
                    assert!(own.of_step(rows) * own.positions(context, rows) >= context, "{context} {kv_heads} {rows}");
                }
            }
        }
    }
    // A large GPU is filled by one row, and a span is no less than what a workgroup takes at a time.
    let shape = CacheShape::gqa(CacheFormat::Q8, 8, 128, 128, 131_072);
    let own = spans(shape, Spans::narrow(131_072));
    assert_eq!((own.of_step(1), own.positions(8192, 1), own.positions(300, 1)), (64, 128, 128));
}
