//! `ssm_conv.wgsl`: the depthwise causal convolution over [x | B | C] for the chunked scan.

use super::ssm_shape::SsmRows;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

const WG: u32 = 64;

/// `u[r, c] = silu(conv(zxbcdt)[r, c] + bias[c])`, the silu as the shape's form has it.
#[derive(Debug)]
pub struct SsmConv<'a> {
    /// Whose u is written.
    pub rows: SsmRows<'a>,
    /// `[channels, 4]`.
    pub weight: &'a Buffer,
    /// `[channels]`.
    pub bias: &'a Buffer,
    /// `[slots, state]`.
    pub state: &'a Buffer,
}

impl SsmConv<'_> {
    /// # Panics
    /// When a buffer is too small: the plan sees to it.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let m = self.rows;
        let s = m.shape;
        m.check(label);
        assert_words(self.weight, 4 * s.channels() as u64, "ssm_conv.weight");
        assert_words(self.bias, s.channels() as u64, "ssm_conv.bias");
        let params = [s.params().as_slice(), &[m.in_stride as u32, m.u_stride as u32]].concat();
        let mut constants = target.constants(vec![("WG", f64::from(WG))]);
        constants.extend(s.constants());
        dispatch(
            label,
            "ssm_conv",
            [&[shader!("ssm_conv.wgsl")], s.sources().as_slice(), &[STEP]].concat(),
            constants,
            &params,
            bindings(m.step, &[m.zxbcdt, self.weight, self.bias, self.state], &[m.u]),
            Grid::new(Extent::Fixed((s.channels() as u32).div_ceil(WG)), Extent::Rows { per: 1 }),
        )
        .costs(Cost {
            bytes: 20 * s.channels(),
            row_bytes: 8 * s.channels(),
            row_macs: 4 * s.channels(),
            segment_bytes: 16 * s.channels(),
            ..Cost::default()
        })
    }
}
