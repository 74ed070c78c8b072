//! The selective scan token by token, before and after its gated norm, with every sum in f64. It knows no chunks:
//!
//! dt = softplus(dt + dt_bias); a = exp(-exp(A_log) dt); S = a S + dt x (outer) B; y = S C + D x;
//! gated = rmsnorm_per_head(y silu(z)) weight.
//!
//! Of discrete Mamba2: S = exp(-softplus(a)) S + x (outer) B; gated = y silu(z + bias of z).

use super::silu;
use super::ssm_conv::{channel, conv_inputs, place};
use zebra_runtime::kernels::ssm_shape::{SsmForm, SsmShape};

/// Rows of one slot that follow each other.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub slot: usize,
    pub count: usize,
    /// Whether the slot's state is carried on.
    pub live: bool,
}

/// What a scan reads.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub shape: SsmShape,
    pub runs: Vec<Run>,
    /// `[rows, in_stride]` of [z | x | B | C | dt] or [x | B | C | z | a].
    pub zxbcdt: Vec<f32>,
    pub in_stride: usize,
    /// `[rows, u_stride]` of [x | B | C], convolved.
    pub u: Vec<f32>,
    pub u_stride: usize,
    /// `[channels, 4]` and `[channels]` of the convolution that made u of zxbcdt and the state: it is not done here.
    pub conv_weight: Vec<f32>,
    pub conv_bias: Vec<f32>,
    /// `[heads]` of (A_log, D, dt_bias, 0), or (D, 0, 0, 0).
    pub heads: Vec<[f32; 4]>,
    /// `[d_inner]`, the norm's or z's bias.
    pub weight: Vec<f32>,
    pub eps: f32,
    /// `[slots, state]`.
    pub state: Vec<f32>,
}

/// What it must give.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// `[rows, d_inner]` before the norm.
    pub y: Vec<f64>,
    /// `[rows, heads]`: how much larger than y the products are whose sum it is (roots of the sums of their squares over
    /// a head), at least 1. Where they cancel, their rounding stays.
    pub cancelled: Vec<f64>,
    /// `[rows, d_inner]`.
    pub gated: Vec<f64>,
    /// `[slots, state]`.
    pub state: Vec<f64>,
}

fn softplus(v: f64) -> f64 {
    v.max(0.0) + (-v.abs()).exp().ln_1p()
}

/// Runs the scan over every row.
pub fn ssm_chunk(inputs: &Inputs) -> Outputs {
    let s = inputs.shape;
    let (p, width, d) = (s.head_dim, s.d_state, s.d_inner());
    let discrete = matches!(s.form, SsmForm::Discrete { .. });
    let rows: usize = inputs.runs.iter().map(|r| r.count).sum();
    let mut out = Outputs {
        y: vec![0.0; rows * d],
        cancelled: vec![0.0; rows * s.heads],
        gated: vec![0.0; rows * d],
        state: inputs.state.iter().map(|v| f64::from(*v)).collect(),
    };
    let mut row = 0;
    for run in &inputs.runs {
        for (head, of_head) in inputs.heads.iter().enumerate() {
            let &[a_log, skip, dt_bias, _] = of_head;
            let skip = if discrete { of_head[0] } else { skip };
            let at = run.slot * s.state() + head * p * width;
            let mut scan = out.state[at..][..p * width].to_vec();
            for r in row..row + run.count {
                let zxbcdt = &inputs.zxbcdt[r * inputs.in_stride..][..s.in_proj()];
                let u: Vec<f64> =
                    inputs.u[r * inputs.u_stride..][..s.channels()].iter().map(|v| f64::from(*v)).collect();
                let x = &u[channel(&s, head, 0, 0)..][..p];
                let b = &u[channel(&s, head, 1, 0)..][..width];
                let c = &u[channel(&s, head, 2, 0)..][..width];
                let raw = f64::from(zxbcdt[zxbcdt.len() - s.heads + head]);
                let (dt, a) = if discrete {
                    (1.0, (-softplus(raw)).exp())
                } else {
                    let dt = softplus(raw + f64::from(dt_bias));
                    (dt, (-f64::from(a_log).exp() * dt).exp())
                };
                let y = &mut out.y[r * d + head * p..][..p];
                let mut terms = 0.0;
                for i in 0..p {
                    for n in 0..width {
                        let v = &mut scan[i * width + n];
                        let (old, new) = (a * *v, dt * x[i] * b[n]);
                        *v = old + new;
                        y[i] += *v * c[n];
                        terms += (old * old + new * new) * c[n] * c[n];
                    }
                    let skipped = f64::from(skip) * x[i];
                    terms += skipped * skipped;
                    y[i] += skipped;
                }
                let squares: f64 = y.iter().map(|v| v * v).sum();
                out.cancelled[r * s.heads + head] = (terms / squares).sqrt().max(1.0);
                let weight = inputs.weight[head * p..][..p].iter().map(|w| f64::from(*w));
                let z_first = if discrete { zxbcdt.len() - s.heads - d } else { 0 };
                let z = zxbcdt[z_first + head * p..][..p].iter().zip(weight);
                let gates = z.map(|(z, w)| silu(f64::from(*z) + if discrete { w } else { 0.0 }));
                let gated: Vec<f64> = y.iter().zip(gates).map(|(y, g)| y * g).collect();
                if discrete {
                    out.gated[r * d + head * p..][..p].copy_from_slice(&gated);
                    continue;
                }
                let mean = gated.iter().map(|v| v * v).sum::<f64>() / p as f64;
                for (i, gated) in gated.iter().enumerate() {
                    let norm = gated / (mean + f64::from(inputs.eps)).sqrt();
                    out.gated[r * d + head * p + i] = norm * f64::from(inputs.weight[head * p + i]);
                }
            }
            if run.live {
                out.state[at..][..p * width].copy_from_slice(&scan);
            }
        }
        if run.live {
            let own = p + 2 * width;
            let taps = &mut out.state[run.slot * s.state() + s.taps_offset()..][..4 * s.heads * own];
            for r in row..row + run.count {
                let inputs = conv_inputs(&s, &inputs.zxbcdt[r * inputs.in_stride..][..s.in_proj()]);
                for (at, taps) in taps.chunks_exact_mut(4).enumerate() {
                    let (part, i) = place(&s, at % own);
                    taps.rotate_left(1);
                    taps[3] = f64::from(inputs[channel(&s, at / own, part, i)]);
                }
            }
        }
        row += run.count;
    }
    out
}
