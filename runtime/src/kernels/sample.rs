//! placeholder until the sampling branch lands
use super::Target;
use crate::gpu::{Buffer, Dispatch, Purpose};
pub const SLOT_BIAS: usize = 256;
pub const SLOT_HISTORY: usize = 256;
pub const SLOT_STOPS: usize = 16;
#[derive(Debug, Clone)]
pub struct SampleSettings { pub slot: [u32; 16], pub bias: Vec<[u32; 2]>, pub stops: [u32; 16] }
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Sampled { pub id: u32, pub flags: u32, pub logprob: f32, pub index: u32, pub top: [[u32; 2]; 20] }
#[derive(Debug)]
pub struct SampleBuffers { pub slots: Buffer, pub settings: Buffer, pub history: Buffer, pub bias: Buffer, pub stops: Buffer, pub sampled: Buffer }
impl SampleBuffers {
    pub fn new(slots: usize, rows: usize) -> Self {
        let b = |l: &str, w: usize| Buffer::new(l, 4 * w as u64, Purpose::Control);
        Self { slots: b("slots", slots * 4), settings: b("settings", slots * 16), history: b("history", slots * 256), bias: b("bias", slots * 512), stops: b("stops", slots * 16), sampled: b("sampled", rows * 44) }
    }
    pub fn buffers(&self) -> Vec<Buffer> { vec![self.slots.clone(), self.settings.clone(), self.history.clone(), self.bias.clone(), self.stops.clone(), self.sampled.clone()] }
}
pub struct Sample<'a> { pub step: &'a Buffer, pub logits: &'a Buffer, pub stride: usize, pub vocab: usize, pub buffers: &'a SampleBuffers }
impl Sample<'_> { pub fn dispatches(&self, _l: &str, _t: Target) -> Vec<Dispatch> { Vec::new() } }
impl Sampled {
    pub fn is_sampled(&self) -> bool { true }
    pub fn stopped(&self) -> bool { true }
    pub fn length_reached(&self) -> bool { true }
    pub fn is_finite(&self) -> bool { true }
    pub fn best(&self, _n: usize) -> Vec<(u32, f32)> { vec![] }
}
