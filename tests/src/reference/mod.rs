//! CPU twins of the shaders, of the same names: plain loops from the formulas, sums in f64.

pub mod ssm_chunk;
