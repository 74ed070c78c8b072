//! placeholder
use crate::Result;
use crate::kernels::sample::SampleSettings;
/// x
#[derive(Debug, Clone, Default)]
pub struct SamplingOptions { pub logprobs: Option<u32> }
impl SamplingOptions {
    pub fn validate(&self, _vocab: usize) -> Result<()> { Ok(()) }
    pub fn settings(&self, _max: u32, _stop: &[u32]) -> Result<SampleSettings> { Ok(SampleSettings { slot: [0; 16], bias: vec![], stops: [0; 16] }) }
}
