//! The weights of a checkpoint: an index over safetensors files ([`safetensors`]), values turned into the layouts that
//! the GPU reads ([`format`](mod@format)), both streamed by [`Checkpoint`], and stored again by [`quantize`]. Nothing
//! here holds a whole file or a whole large tensor, and nothing knows the GPU.

mod checkpoint;
pub mod format;
pub mod safetensors;
mod writer;

#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, MatrixChunk, MatrixSink};
pub use format::{GROUP, Preset, WeightFormat};
pub use writer::{Place, Shard, ShardLayout, ShardSink, Storage, quantize, scale_name};
