//! What the adapter itself gives, measured: the floor that a step's time is compared with.

use super::Model;
use crate::Result;
use crate::gpu::{Buffer, Purpose, StepShape, StepSize};
use crate::kernels::read_bandwidth::ReadBandwidth;

/// Enough workgroups to fill a GPU once.
const WORKGROUPS: usize = 1024;
/// Empty dispatches in a pass, each waiting for the one before.
const EMPTY: usize = 64;
const REPETITIONS: usize = 5;

/// Times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdapterSpeed {
    /// Bytes that are read in a nanosecond, from the model's largest weight.
    pub bytes_per_nanosecond: f64,
    /// The weight's bytes.
    pub bytes_read: u64,
    /// A dispatch that does nothing and waits for the one before.
    pub dispatch: f64,
    /// What a pass of its own adds to it when dispatches are timed one by one.
    pub pass: f64,
}

impl Model {
    /// Measures the adapter.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) when the device has no timestamps.
    pub async fn adapter_speed(&self) -> Result<AdapterSpeed> {
        let sums = Buffer::new("sums", 4 * ReadBandwidth::words(WORKGROUPS) as u64, Purpose::Control);
        self.gpu().allocate(std::slice::from_ref(&sums)).await?;
        let speed = self.measure(&sums).await;
        self.gpu().release(&[sums]);
        speed
    }

    async fn measure(&self, sums: &Buffer) -> Result<AdapterSpeed> {
        let gpu = self.gpu();
        let weights = self.plan().tensors.buffers();
        let data = weights.iter().max_by_key(|b| b.size()).unwrap_or(&self.plan().work.logits.buffer);
        let all = ReadBandwidth { data, bytes: data.size(), workgroups: WORKGROUPS, sums };
        let none = ReadBandwidth { bytes: 0, workgroups: 1, ..all };
        let read = gpu.compile(&[all.dispatch("speed")]).await?;
        let empty = gpu.compile(&vec![none.dispatch("speed"); EMPTY]).await?;

        let (shape, size) = (StepShape::default(), StepSize::default());
        let mut best = [f64::INFINITY; 3];
        for _ in 0..REPETITIONS {
            let alone: f64 = empty.profile(gpu, size).await?.iter().map(|t| t.nanoseconds).sum();
            let reading = gpu.time(&[(&read, 0..1)], shape).await?;
            let together = gpu.time(&[(&empty, 0..EMPTY)], shape).await?;
            for (best, time) in best.iter_mut().zip([alone, reading, together]) {
                *best = best.min(time);
            }
        }
        let [alone, reading, together] = best;
        let dispatch = together / EMPTY as f64;
        Ok(AdapterSpeed {
            // A timer of coarse steps may say that it took no time.
            bytes_per_nanosecond: data.size() as f64 / (reading - dispatch).max(1.0),
            bytes_read: data.size(),
            dispatch,
            pass: (alone / EMPTY as f64 - dispatch).max(0.0),
        })
    }
}
