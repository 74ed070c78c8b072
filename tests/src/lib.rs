//! CPU twins and helpers of the tests.

pub mod reference;
