//! The convolution, the selective scan with the gated norm of each head, and the state they leave:
//!
//! [x | B | C] = silu(sum_k w[:, k] in[t - 3 + k] + bias);
//! dt = softplus(dt + dt_bias); a = exp(-exp(A_log) dt); S = a S + dt x (outer) B; y = S C + D x;
//! y = rmsnorm_per_head(y silu(z)) weight.
//!
//! Of discrete Mamba2: [x | B | C] = sum_k w[:, k] in[t - 3 + k] + bias; S = exp(-softplus(a)) S + x (outer) B;
//! y = (S C + D x) silu(z + bias of z).

use super::silu;
use super::ssm_conv::{channel, conv_inputs, place};
use super::step::Step;
use zebra_runtime::kernels::ssm_shape::{SsmForm, SsmShape};

/// What a scan reads.
#[derive(Debug)]
pub struct SsmScan<'a> {
    pub shape: SsmShape,
    pub zxbcdt: &'a [f32],
    pub in_stride: usize,
    /// `[channels, 4]`.
    pub conv_weight: &'a [f32],
    /// `[channels]`.
    pub conv_bias: &'a [f32],
    /// `[heads]` each; discrete Mamba2 has only D.
    pub a_log: &'a [f32],
    pub d: &'a [f32],
    pub dt_bias: &'a [f32],
    /// `[d_inner]`, the norm's or z's bias.
    pub weight: &'a [f32],
    pub eps: f32,
    pub y_stride: usize,
}

/// log(1 + exp(v)).
pub fn softplus(v: f64) -> f64 {
    if v > 0.0 { v + (-v).exp().ln_1p() } else { v.exp().ln_1p() }
}

/// Writes y, and of the live slots' states `[slots, state]` what follows.
pub fn ssm_scan(step: &Step, m: &SsmScan<'_>, state: &mut [f64], y: &mut [f64]) {
    let s = &m.shape;
    let (p, width) = (s.head_dim, s.d_state);
    let own = p + 2 * width;
    let discrete = matches!(s.form, SsmForm::Discrete { .. });
    for segment in &step.segments {
        let slot = &mut state[segment.slot * s.state()..][..s.state()];
        let mut after = slot.to_vec();
        let (scan, taps) = after.split_at_mut(s.taps_offset());
        for t in 0..segment.count {
            let r = segment.first + t;
            let row = &m.zxbcdt[r * m.in_stride..][..s.in_proj()];
            // [z | x | B | C | dt], or [x | B | C | z | a].
            let dts = &row[row.len() - s.heads..];
            let z = if discrete { &row[row.len() - s.heads - s.d_inner()..] } else { row };
            let inputs = conv_inputs(s, row);
            for h in 0..s.heads {
                // The head's x, B and C, each channel after its own last four inputs.
                let mut u = vec![0.0; own];
                for (at, u) in u.iter_mut().enumerate() {
                    let (part, i) = place(s, at);
                    let c = channel(s, h, part, i);
                    let last = &mut taps[4 * (h * own + at)..][..4];
                    last.rotate_left(1);
                    last[3] = f64::from(inputs[c]);
                    let sum: f64 = (0..4).map(|k| f64::from(m.conv_weight[4 * c + k]) * last[k]).sum();
                    let sum = sum + f64::from(m.conv_bias[c]);
                    *u = if discrete { sum } else { silu(sum) };
                }
                let (x, b, c) = (&u[..p], &u[p..p + width], &u[p + width..]);
                let (dt, a) = if discrete {
                    (1.0, (-softplus(f64::from(dts[h]))).exp())
                } else {
                    let dt = softplus(f64::from(dts[h]) + f64::from(m.dt_bias[h]));
                    (dt, (-f64::from(m.a_log[h]).exp() * dt).exp())
                };
                let mut gated = vec![0.0; p];
                for i in 0..p {
                    let mut sum = f64::from(m.d[h]) * x[i];
                    for n in 0..width {
                        let v = &mut scan[(h * p + i) * width + n];
                        *v = a * *v + dt * x[i] * b[n];
                        sum += *v * c[n];
                    }
                    let bias = if discrete { f64::from(m.weight[h * p + i]) } else { 0.0 };
                    gated[i] = sum * silu(f64::from(z[h * p + i]) + bias);
                }
                if discrete {
                    y[r * m.y_stride + h * p..][..p].copy_from_slice(&gated);
                    continue;
                }
                let mean = gated.iter().map(|v| v * v).sum::<f64>() / p as f64;
                for i in 0..p {
                    let norm = gated[i] / (mean + f64::from(m.eps)).sqrt();
                    y[r * m.y_stride + h * p + i] = norm * f64::from(m.weight[h * p + i]);
                }
            }
        }
        if step.rows[segment.first].live {
            slot.copy_from_slice(&after);
        }
    }
}
