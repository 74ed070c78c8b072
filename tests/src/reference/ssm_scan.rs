//! The selective scan with the gated norm of each head, and the state it leaves:
//!
//! dt = softplus(dt + dt_bias); a = exp(-exp(A_log) dt); S = a S + dt x (outer) B; y = S C + D x;
//! y = rmsnorm_per_head(y silu(z)) weight.

use super::silu;
use super::ssm_conv::{history, repeat, taps};
use super::step::Step;
use zebra_runtime::kernels::ssm_conv::SsmShape;

/// What a scan reads.
#[derive(Debug)]
pub struct SsmScan<'a> {
    pub shape: SsmShape,
    pub zxbcdt: &'a [f32],
    pub in_stride: usize,
    /// `[rows, u_stride]`, convolved [x | B | C].
    pub u: &'a [f32],
    pub u_stride: usize,
    /// `[heads]` each.
    pub a_log: &'a [f32],
    pub d: &'a [f32],
    pub dt_bias: &'a [f32],
    /// `[d_inner]`.
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
    let (p, heads) = (s.head_dim, s.heads);
    for segment in &step.segments {
        let before: Vec<f32> = state.iter().map(|v| *v as f32).collect();
        let mut scan: Vec<f64> = state[segment.slot * s.state()..][..s.taps_offset()].to_vec();
        let mut inputs = Vec::new();
        for t in 0..segment.count {
            let r = segment.first + t;
            let row = &m.zxbcdt[r * m.in_stride..][..s.in_proj()];
            inputs.push(row);
            let (z, dts) = (&row[..s.d_inner], &row[2 * s.d_inner + 2 * s.d_xb..]);
            let u = &m.u[r * m.u_stride..][..s.channels()];
            let width = s.xb_channels();
            let (x, b, c) = (&u[..width], &u[width..2 * width], &u[2 * width..]);
            let spread = |v: &[f32]| {
                if s.repeat_kv_before_conv { v.to_vec() } else { repeat(v, s) }
            };
            let (x, b) = (spread(x), spread(b));
            for h in 0..heads {
                let dt = softplus(f64::from(dts[h]) + f64::from(m.dt_bias[h]));
                let a = (-f64::from(m.a_log[h]).exp() * dt).exp();
                let mut gated = vec![0.0; p];
                for i in 0..p {
                    let xi = f64::from(x[h * p + i]);
                    let mut sum = f64::from(m.d[h]) * xi;
                    for n in 0..p {
                        let v = &mut scan[(h * p + i) * p + n];
                        *v = a * *v + dt * xi * f64::from(b[h * p + n]);
                        sum += *v * f64::from(c[h * p + n]);
                    }
                    gated[i] = sum * silu(f64::from(z[h * p + i]));
                }
                let mean = gated.iter().map(|v| v * v).sum::<f64>() / p as f64;
                for i in 0..p {
                    let norm = gated[i] / (mean + f64::from(m.eps)).sqrt();
                    y[r * m.y_stride + h * p + i] = norm * f64::from(m.weight[h * p + i]);
                }
            }
        }
        if !step.rows[segment.first].live {
            continue;
        }
        let slot = &mut state[segment.slot * s.state()..][..s.state()];
        slot[..s.taps_offset()].copy_from_slice(&scan);
        let old = taps(s, &before, segment.slot);
        let all: Vec<Vec<f32>> =
            std::iter::once((0..s.channels()).map(|c| old[4 * c]).collect()).chain(history(s, &inputs, old)).collect();
        for c in 0..s.channels() {
            for k in 0..4 {
                slot[s.taps_offset() + 4 * c + k] = f64::from(all[segment.count + k][c]);
            }
        }
    }
}
