//! CPU twins and helpers of the tests.

pub mod files;
pub mod compare;
pub mod harness;
pub mod random;
pub mod reference;
