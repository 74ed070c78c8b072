//! Results that come back while later work already runs: a ring of mappable buffers, made once and used in turn.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Buffer, Gpu, Program, StepShape};
use crate::Result;

/// Mappable buffers of one size.
#[derive(Debug)]
pub struct Ring {
    size: u64,
    free: VecDeque<wgpu::Buffer>,
}

/// Submitted work whose result has a buffer of a [`Ring`].
#[must_use]
#[derive(Debug)]
pub struct Pending {
    staging: wgpu::Buffer,
    index: wgpu::SubmissionIndex,
    size: u64,
}

/// A part of a program to run.
pub type Run<'a> = (&'a Program, Range<usize>);

impl Ring {
    /// A ring of buffers of `size` bytes; they are made as they are first needed.
    pub fn new(size: u64) -> Self {
        Self { size, free: VecDeque::new() }
    }

    /// Runs programs once for each of the shapes, each time in a compute pass of its own, in one submit, and has the
    /// first `bytes` of `result` after each of them copied back, one after the other.
    pub fn submit(
        &mut self,
        gpu: &Gpu,
        runs: &[Run<'_>],
        shapes: &[StepShape],
        result: &Buffer,
        bytes: u64,
    ) -> Result<Pending> {
        let size = bytes * shapes.len() as u64;
        assert!(size <= self.size, "{size} bytes are to be read back, the ring has {}", self.size);
        gpu.fault()?;
        let staging = match self.free.pop_front() {
            Some(free) => free,
            None => gpu.staging(self.size)?,
        };
        let mut encoder = gpu.encoder("step");
        for (i, shape) in shapes.iter().enumerate() {
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                for (program, range) in runs {
                    program.encode_range(&mut pass, *shape, range.clone());
                }
            }
            if bytes > 0 {
                encoder.copy_buffer_to_buffer(result.raw(), 0, &staging, i as u64 * bytes, bytes);
            }
        }
        Ok(Pending { staging, index: gpu.submit(encoder), size })
    }

    /// Waits for the work and takes what came back.
    pub async fn wait(&mut self, gpu: &Gpu, pending: Pending) -> Result<Vec<u8>> {
        let mut bytes = gpu.map(&pending.staging, pending.index).await?;
        bytes.truncate(pending.size as usize);
        self.free.push_back(pending.staging);
        Ok(bytes)
    }
}
