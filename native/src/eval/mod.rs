pub mod kld;
pub mod logits;
pub mod questions;
