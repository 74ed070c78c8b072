//! `embed.wgsl`: rows of the embedding, and the step's tables made final.

use super::coded::{self, Coding};
use super::{Matrix, Target, assert_words, dispatch, shader};
use crate::gpu::{Access, Binding, Buffer, Cost, Dispatch, Extent, Grid};

/// Lanes of a workgroup, each a quad of a row.
const WG: u32 = 64;

/// Token of a row that takes it from its slot.
pub const FROM_SLOT: u32 = u32::MAX;

/// `x[r, :] = weight[token(r), :]`.
#[derive(Debug)]
pub struct Embed<'a> {
    /// What the CPU asks for, `[1 + 3 * max_rows]` vec4.
    pub request: &'a Buffer,
    /// Where the sampler leaves each slot's next token, `[slots]` vec4.
    pub slots: &'a Buffer,
    /// The tables that every other kernel reads.
    pub step: &'a Buffer,
    /// `[vocab, hidden]`.
    pub weight: &'a Matrix,
    /// `[rows, hidden padded to 32]`.
    pub x: &'a Buffer,
    /// Where x is left coded too.
    pub x_codes: Option<Coding<'a>>,
}

impl Embed<'_> {
    /// One dispatch, or one for each part of a weight that the adapter's limits cut.
    pub fn dispatches(&self, label: &str, target: Target) -> Vec<Dispatch> {
        let quads = (self.weight.k_padded() / 4) as u32;
        assert_words(self.x, u64::from(target.max_rows * quads * 4), "embed.x");
        let parts = self.weight.parts(&target.limits, if self.x_codes.is_some() { 6 } else { 4 });
        let count = parts.len();
        let mut all = Vec::with_capacity(count);
        for (i, part) in parts.into_iter().enumerate() {
            let read = |number, buffer: &Buffer| Binding { number, access: Access::Read, buffer: buffer.clone() };
            let write = |number, buffer: &Buffer| Binding { number, access: Access::ReadWrite, buffer: buffer.clone() };
            let mut bindings = vec![read(0, self.request), read(2, self.slots), write(3, self.step), write(4, self.x)];
            bindings.extend(part.bindings());
            let coding = coded::parts(self.x_codes, 4 * WG as usize, label);
            bindings.extend(coding.bindings);
            let mut sources = vec![shader!("embed.wgsl")];
            sources.extend(part.sources());
            sources.extend(coding.sources);
            let mut constants = target.constants(vec![("WG", f64::from(WG))]);
            constants.extend(part.constants());
            constants.extend(coding.constants);
            let (n, k) = (self.weight.n() as u32, self.weight.k() as u32);
            let params = [quads, n, part.first_row as u32, part.rows as u32, k];
            let grid = Grid::new(Extent::Fixed(quads.div_ceil(WG)), Extent::Rows { per: 1 });
            let mut d = dispatch(label, "embed", sources, constants, &params, bindings, grid);
            d.forced_by_limits = i > 0;
            // The row of one token is read, whichever part it lies in.
            let row_bytes = if i == 0 { part.bytes(1) + 16 * quads as usize } else { 0 };
            all.push(d.costs(Cost { row_bytes, ..Cost::default() }));
        }
        all
    }
}
