//! Coded rows: rows in int8 by groups of 32, each with a scale. The kernel that makes a row leaves it so
//! (`parts/store_coded.wgsl`), or [`super::quantize_rows`] does; products on int8 dot products read it.
//!
//! Words, `[rows, 3, groups, 4]`: of each group the first 16 codes, the other 16, and (scale, sum of squares, 0, 0).

use super::matrix::GROUP;
use super::{assert_words, read, shader};
use crate::gpu::{Access, Binding, Buffer};

/// Words of a group.
pub const GROUP_WORDS: usize = 12;

/// Words of so many rows of a width.
pub const fn words(rows: usize, width: usize) -> usize {
    rows * width.div_ceil(GROUP) * GROUP_WORDS
}

/// Where a kernel leaves its rows coded, beside what it writes in f32.
#[derive(Debug, Clone, Copy)]
pub struct Coding<'a> {
    /// `[rows, 3, groups, 4]` words, whole rows.
    pub codes: &'a Buffer,
    /// The weight of the norm that the rows go through next, `[width]`: what is rounded is multiplied by it.
    pub gain: Option<&'a Buffer>,
}

/// The parts for a kernel that may leave its rows coded, to be added to the rest.
pub(super) struct CodingParts {
    pub sources: Vec<&'static str>,
    pub bindings: Vec<Binding>,
    pub constants: Vec<(&'static str, f64)>,
}

/// For a kernel whose workgroup rounds so many values at once, of rows that need not all be there.
pub(super) fn parts(coding: Option<Coding<'_>>, values: usize, label: &str) -> CodingParts {
    let none = shader!("parts/gain_none.wgsl");
    let Some(Coding { codes, gain }) = coding else {
        let sources = vec![shader!("parts/store_plain.wgsl"), none];
        return CodingParts { sources, bindings: vec![], constants: vec![] };
    };
    assert!(values.is_multiple_of(GROUP), "{label}: {values} values are no whole groups");
    assert_words(codes, GROUP_WORDS as u64, label);
    let mut bindings = vec![Binding { number: 14, access: Access::ReadWrite, buffer: codes.clone() }];
    bindings.extend(gain.map(|gain| read(15, gain)));
    CodingParts {
        sources: vec![
            shader!("parts/store_coded.wgsl"),
            if gain.is_some() { shader!("parts/gain_next.wgsl") } else { none },
        ],
        bindings,
        constants: vec![("CODED", values as f64)],
    }
}
