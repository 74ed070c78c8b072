//! `u[t] = silu(sum_k w[:, k] in[t - 3 + k] + bias)` over [x | B | C]; discrete Mamba2 has no silu.

use super::silu;
use super::step::Step;
use zebra_runtime::kernels::ssm_shape::{SsmForm, SsmShape};

/// The convolution's inputs of a row: [x | B | C], x and B repeated over the heads when that comes before.
pub fn conv_inputs(shape: &SsmShape, zxbcdt: &[f32]) -> Vec<f32> {
    let s = shape;
    let SsmForm::Mamba2 { d_xb, repeat_kv_before_conv } = s.form else {
        return zxbcdt[..s.channels()].to_vec();
    };
    let (x, rest) = zxbcdt[s.d_inner()..].split_at(d_xb);
    let (b, rest) = rest.split_at(d_xb);
    let c = &rest[..s.d_inner()];
    if !repeat_kv_before_conv {
        return [x, b, c].concat();
    }
    [repeat(x, s), repeat(b, s), c.to_vec()].concat()
}

/// Each group of head_dim, once for every head that shares it.
fn repeat<T: Copy>(groups: &[T], s: &SsmShape) -> Vec<T> {
    let times = s.d_inner() / groups.len();
    groups.chunks(s.head_dim).flat_map(|g| std::iter::repeat_n(g, times)).flatten().copied().collect()
}

/// The convolved channel that is value i of a head's x (part 0), B (1) or C (2).
pub fn channel(s: &SsmShape, head: usize, part: usize, i: usize) -> usize {
    match s.form {
        SsmForm::Mamba2 { d_xb, repeat_kv_before_conv } => {
            let width = if repeat_kv_before_conv { s.d_inner() } else { d_xb };
            let group = if repeat_kv_before_conv || part == 2 { head } else { head / (s.d_inner() / d_xb) };
            part * width + group * s.head_dim + i
        }
        SsmForm::Discrete { .. } if part == 0 => head * s.head_dim + i,
        SsmForm::Discrete { groups } => s.d_inner() + ((part - 1) * groups + head / (s.heads / groups)) * s.d_state + i,
    }
}

/// What value `at` of a head's [x | B | C] is: its part, and its place in that.
pub fn place(s: &SsmShape, at: usize) -> (usize, usize) {
    if at < s.head_dim { (0, at) } else { (1 + (at - s.head_dim) / s.d_state, (at - s.head_dim) % s.d_state) }
}

/// The last four inputs of each channel of a slot, `[channels, 4]`, oldest first: each head that reads a channel keeps
/// them, the first one's count.
pub fn taps(s: &SsmShape, state: &[f32], slot: usize) -> Vec<f32> {
    let kept = &state[slot * s.state() + s.taps_offset()..][..4 * s.heads * (s.head_dim + 2 * s.d_state)];
    let mut taps = vec![0.0; 4 * s.channels()];
    for (at, four) in kept.chunks(4).enumerate().rev() {
        let own = s.head_dim + 2 * s.d_state;
        let (part, i) = place(s, at % own);
        taps[4 * channel(s, at / own, part, i)..][..4].copy_from_slice(four);
    }
    taps
}

/// Inputs of a segment with the three before it: `[3 + count][channels]`.
pub fn history(s: &SsmShape, zxbcdt: &[&[f32]], taps: &[f32]) -> Vec<Vec<f32>> {
    let before = (1..4).map(|k| (0..s.channels()).map(|c| taps[4 * c + k]).collect());
    before.chain(zxbcdt.iter().map(|row| conv_inputs(s, row))).collect()
}

/// Writes u `[rows, u_stride]`.
#[expect(clippy::too_many_arguments, reason = "a formula's names")]
pub fn ssm_conv(
    step: &Step,
    s: &SsmShape,
    zxbcdt: &[f32],
    in_stride: usize,
    weight: &[f32],
    bias: &[f32],
    state: &[f32],
    u_stride: usize,
    u: &mut [f64],
) {
    for segment in &step.segments {
        let rows: Vec<&[f32]> =
            (0..segment.count).map(|t| &zxbcdt[(segment.first + t) * in_stride..][..in_stride]).collect();
        let inputs = history(s, &rows, &taps(s, state, segment.slot));
        for t in 0..segment.count {
            for c in 0..s.channels() {
                let sum: f64 = (0..4).map(|k| f64::from(weight[4 * c + k]) * f64::from(inputs[t + k][c])).sum();
                let sum = sum + f64::from(bias[c]);
                let discrete = matches!(s.form, SsmForm::Discrete { .. });
                u[(segment.first + t) * u_stride + c] = if discrete { sum } else { silu(sum) };
            }
        }
    }
}
