//! Time on the GPU, by timestamps around passes.

use super::{Gpu, Run, StepShape};
use crate::{Error, Result};

/// Two timestamps for each of some passes, and their way back.
pub(super) struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    count: u32,
}

impl Timestamps {
    /// # Errors
    /// [`Error::Limit`] when the device has no timestamps.
    pub(super) fn new(gpu: &Gpu, passes: usize) -> Result<Self> {
        if !gpu.has_timestamps() {
            return Err(Error::Limit {
                what: "profile".into(),
                limit: "timestamp queries".into(),
                need: 1,
                have: 0,
                advice: "this adapter cannot time its passes".into(),
            });
        }
        let count = 2 * passes as u32;
        let queries = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let size = u64::from(count) * 8;
        let resolved = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Ok(Self { queries, resolved, staging: gpu.staging(size)?, count })
    }

    /// A compute pass between its timestamps.
    pub(super) fn pass<'e>(
        &self,
        encoder: &'e mut wgpu::CommandEncoder,
        pass: usize,
        label: &str,
    ) -> wgpu::ComputePass<'e> {
        encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(label),
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: &self.queries,
                beginning_of_pass_write_index: Some(2 * pass as u32),
                end_of_pass_write_index: Some(2 * pass as u32 + 1),
            }),
        })
    }

    /// Submits the passes and waits for the nanoseconds that each took.
    pub(super) async fn submit(self, gpu: &Gpu, mut encoder: wgpu::CommandEncoder) -> Result<Vec<f64>> {
        encoder.resolve_query_set(&self.queries, 0..self.count, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, u64::from(self.count) * 8);
        let index = gpu.submit(encoder);
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&gpu.map(&self.staging, index).await?);
        let period = f64::from(gpu.queue().get_timestamp_period());
        Ok(ticks.chunks_exact(2).map(|t| t[1].saturating_sub(t[0]) as f64 * period).collect())
    }
}

impl Gpu {
    /// Runs programs in one pass, as a step does, and gives the nanoseconds it took on the GPU.
    ///
    /// # Errors
    /// [`Error::Limit`] when the device has no timestamps.
    pub async fn time(&self, runs: &[Run<'_>], shape: StepShape) -> Result<f64> {
        let timestamps = Timestamps::new(self, 1)?;
        let mut encoder = self.encoder("time");
        {
            let mut pass = timestamps.pass(&mut encoder, 0, "time");
            for (program, range) in runs {
                program.encode_range(&mut pass, shape, range.clone());
            }
        }
        Ok(timestamps.submit(self, encoder).await?.iter().sum())
    }
}
