//! The selective scan token by token, before and after its gated norm, with every sum in f64. It knows no chunks:
//!
//! dt = softplus(dt + dt_bias); a = exp(-exp(A_log) dt); S = a S + dt x (outer) B; y = S C + D x;
//! gated = rmsnorm_per_head(y silu(z)) weight.

use zebra_runtime::kernels::ssm_shape::SsmShape;

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
    /// `[rows, in_stride]` of [z | x | B | C | dt].
    pub zxbcdt: Vec<f32>,
    pub in_stride: usize,
    /// `[rows, u_stride]` of [x | B | C], convolved.
    pub u: Vec<f32>,
    pub u_stride: usize,
    /// `[channels, 4]` and `[channels]` of the convolution that made u of zxbcdt and the state: it is not done here.
    pub conv_weight: Vec<f32>,
    pub conv_bias: Vec<f32>,
    /// `[heads]` of (A_log, D, dt_bias, 0).
    pub heads: Vec<[f32; 4]>,
    /// `[d_inner]`.
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
    let (p, d) = (s.head_dim, s.d_inner);
    let group = |head: usize| {
        if s.repeat_kv_before_conv { head } else { head / s.repeat() }
    };
    let rows: usize = inputs.runs.iter().map(|r| r.count).sum();
    let mut out = Outputs {
        y: vec![0.0; rows * d],
        cancelled: vec![0.0; rows * s.heads],
        gated: vec![0.0; rows * d],
        state: inputs.state.iter().map(|v| f64::from(*v)).collect(),
    };
    let mut row = 0;
    for run in &inputs.runs {
        for (head, &[a_log, skip, dt_bias, _]) in inputs.heads.iter().enumerate() {
            let at = run.slot * s.state() + head * p * p;
            let mut scan = out.state[at..][..p * p].to_vec();
            for r in row..row + run.count {
                let zxbcdt = &inputs.zxbcdt[r * inputs.in_stride..][..s.in_proj()];
                let u: Vec<f64> =
                    inputs.u[r * inputs.u_stride..][..s.channels()].iter().map(|v| f64::from(*v)).collect();
                let x = &u[group(head) * p..][..p];
                let b = &u[s.xb_channels() + group(head) * p..][..p];
                let c = &u[2 * s.xb_channels() + head * p..][..p];
                let dt = softplus(f64::from(zxbcdt[2 * d + 2 * s.d_xb + head]) + f64::from(dt_bias));
                let a = (-f64::from(a_log).exp() * dt).exp();
                let y = &mut out.y[r * d + head * p..][..p];
                let mut terms = 0.0;
                for i in 0..p {
                    for n in 0..p {
                        let v = &mut scan[i * p + n];
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
                let gates = zxbcdt[head * p..][..p].iter().map(|z| f64::from(*z) / (1.0 + (-f64::from(*z)).exp()));
                let gated: Vec<f64> = y.iter().zip(gates).map(|(y, g)| y * g).collect();
                let mean = gated.iter().map(|v| v * v).sum::<f64>() / p as f64;
                for (i, gated) in gated.iter().enumerate() {
                    let norm = gated / (mean + f64::from(inputs.eps)).sqrt();
                    out.gated[r * d + head * p + i] = norm * f64::from(inputs.weight[head * p + i]);
                }
            }
            if run.live {
                out.state[at..][..p * p].copy_from_slice(&scan);
            }
        }
        if run.live {
            let taps = &mut out.state[run.slot * s.state() + s.taps_offset()..][..12 * d];
            for r in row..row + run.count {
                let inputs = &inputs.zxbcdt[r * inputs.in_stride + d..][..2 * s.d_xb + d];
                for (at, taps) in taps.chunks_exact_mut(4).enumerate() {
                    let (head, part, i) = (at / (3 * p), at / p % 3, at % p);
                    // C is the head's own, x and B its group's.
                    let group = if part == 2 { head } else { head / s.repeat() };
                    taps.rotate_left(1);
                    taps[3] = f64::from(inputs[part * s.d_xb + group * p + i]);
                }
            }
        }
        row += run.count;
    }
    out
}
