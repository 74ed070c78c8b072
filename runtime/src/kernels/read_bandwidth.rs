//! `read_bandwidth.wgsl`: reads a buffer and does next to nothing else, to measure an adapter.

use super::{assert_words, dispatch, shader};
use crate::gpu::{Access, Binding, Buffer, Dispatch, Extent, Grid};

const WG: usize = 256;

/// `sums[i] = sum of the words that lane i reads`.
#[derive(Debug)]
pub struct ReadBandwidth<'a> {
    pub data: &'a Buffer,
    /// Bytes of it to read, a multiple of 16.
    pub bytes: u64,
    pub workgroups: usize,
    /// [`ReadBandwidth::words`] u32.
    pub sums: &'a Buffer,
}

impl ReadBandwidth<'_> {
    /// Words of `sums`.
    pub fn words(workgroups: usize) -> usize {
        WG * workgroups
    }

    pub fn dispatch(&self, label: &str) -> Dispatch {
        let lanes = Self::words(self.workgroups);
        assert!(self.bytes.is_multiple_of(16), "{label}: {} bytes are no whole quads", self.bytes);
        assert_words(self.data, self.bytes / 4, "read_bandwidth.data");
        assert_words(self.sums, lanes as u64, "read_bandwidth.sums");
        dispatch(
            label,
            "read_bandwidth",
            vec![shader!("read_bandwidth.wgsl")],
            vec![("WG", WG as f64), ("LANES", lanes as f64)],
            &[(self.bytes / 16) as u32],
            vec![
                Binding { number: 2, access: Access::Read, buffer: self.data.clone() },
                Binding { number: 3, access: Access::ReadWrite, buffer: self.sums.clone() },
            ],
            Grid::new(Extent::Fixed(self.workgroups as u32), Extent::Fixed(1)),
        )
    }
}
