//! What a measurement leaves: one JSON object, or a table.

use std::fmt::Write;

use serde::Serialize;

use super::profile::{Adapter, Profile};

/// A mean with its standard deviation.
#[derive(Debug, Serialize)]
pub struct Speed {
    /// `pp512` or `tg128`, then the depth and the batch where they are not 0 and 1.
    pub test: String,
    pub tokens_per_second: f64,
    pub deviation: f64,
    /// Seconds of one repetition each.
    pub seconds: Vec<f64>,
    /// GPU time of a decoding step, all of it in one pass, and its share of the time that a step takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_microseconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_busy: Option<f64>,
    /// Where the GPU's time goes in a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

impl Speed {
    pub fn new(test: String, tokens: usize, seconds: Vec<f64>) -> Self {
        let speeds: Vec<f64> = seconds.iter().map(|s| tokens as f64 / s).collect();
        let mean = speeds.iter().sum::<f64>() / speeds.len() as f64;
        let spread = speeds.iter().map(|s| (s - mean).powi(2)).sum::<f64>();
        let deviation = (spread / (speeds.len().max(2) - 1) as f64).sqrt();
        let (gpu_microseconds, gpu_busy, profile) = (None, None, None);
        Self { test, tokens_per_second: mean, deviation, seconds, gpu_microseconds, gpu_busy, profile }
    }

    /// Adds the GPU time of one of `steps` equal steps.
    pub fn gpu_step(&mut self, nanoseconds: f64, steps: usize) {
        let seconds = self.seconds.iter().sum::<f64>() / (self.seconds.len() * steps) as f64;
        self.gpu_microseconds = Some(nanoseconds / 1e3);
        self.gpu_busy = Some(nanoseconds / 1e9 / seconds);
    }
}

/// What the graphics library's allocator says it holds: bytes in use, and of the blocks of memory they lie in.
#[derive(Debug, Serialize)]
pub struct Allocator {
    pub used: u64,
    pub reserved: u64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub model: String,
    pub parameters: u64,
    pub format: String,
    pub cache: String,
    /// The twins that run, and whether they were measured.
    pub kernels: String,
    pub context: usize,
    pub adapter: String,
    pub driver: String,
    pub commit: &'static str,
    pub version: &'static str,
    pub load_seconds: f64,
    pub first_token_seconds: f64,
    pub dispatches_per_token: usize,
    pub weight_bytes: u64,
    pub peak_gpu_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocator_bytes: Option<Allocator>,
    pub peak_host_bytes: Option<u64>,
    pub results: Vec<Speed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_speed: Option<Adapter>,
}

impl Report {
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(out, "{} on {} ({})", self.model, self.adapter, self.driver)?;
        writeln!(
            out,
            "commit {} · load {:.2} s · first token of the prompt {:.1} ms · {} dispatches a token",
            self.commit,
            self.load_seconds,
            1e3 * self.first_token_seconds,
            self.dispatches_per_token,
        )?;
        writeln!(out, "kernels {}", self.kernels)?;
        let host = self.peak_host_bytes.map_or("not measured".into(), |b| format!("{:.1} MiB", mib(b)));
        let allocator = self.allocator_bytes.as_ref().map_or(String::new(), |a| {
            format!("; allocator: {:.1} in use, {:.1} reserved", mib(a.used), mib(a.reserved))
        });
        writeln!(
            out,
            "GPU memory {:.1} MiB (weights {:.1}{allocator}) · peak host memory {host}",
            mib(self.peak_gpu_bytes),
            mib(self.weight_bytes)
        )?;
        writeln!(out, "\n| parameters | format | cache | test | tokens/s | GPU busy |")?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for s in &self.results {
            writeln!(
                out,
                "| {:.2} B | {} | {} | {} | {:.1} ± {:.1} | {} |",
                self.parameters as f64 / 1e9,
                self.format,
                self.cache,
                s.test,
                s.tokens_per_second,
                s.deviation,
                s.gpu_busy.map_or("–".into(), |busy| format!("{:.1}%", 100.0 * busy)),
            )?;
        }
        if let Some(adapter) = &self.adapter_speed {
            writeln!(out, "\n{adapter}")?;
        }
        for s in &self.results {
            if let Some(profile) = &s.profile {
                writeln!(out, "\nOne step of {}{profile}", s.test)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_share_is_of_the_time_of_a_step() {
        let mut speed = Speed::new("tg10".into(), 40, vec![1.0, 4.0]);
        assert_eq!((speed.tokens_per_second, speed.gpu_busy), (25.0, None));
        // Ten steps in 2.5 seconds on average: 250 ms each.
        speed.gpu_step(187.5e6, 10);
        assert_eq!((speed.gpu_microseconds, speed.gpu_busy), (Some(187_500.0), Some(0.75)));
    }
}
