//! Where a step's GPU time goes, kernel by kernel, against what the adapter allows.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::Serialize;
use zebra_runtime::gpu::DispatchTime;
use zebra_runtime::model::AdapterSpeed;

/// What the adapter itself was measured to give.
#[derive(Debug, Serialize)]
pub struct Adapter {
    gigabytes_per_second: f64,
    /// Bytes that were read for it.
    bytes_read: u64,
    dispatch_microseconds: f64,
    /// What the profile takes off each dispatch's time.
    pass_microseconds: f64,
}

impl Adapter {
    pub fn new(speed: &AdapterSpeed) -> Self {
        Self {
            gigabytes_per_second: speed.bytes_per_nanosecond,
            bytes_read: speed.bytes_read,
            dispatch_microseconds: speed.dispatch / 1e3,
            pass_microseconds: speed.pass / 1e3,
        }
    }
}

impl Display for Adapter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "The adapter, measured here: reads {:.0} GB/s (of the largest weight, {:.1} MB), {:.2} us a dependent dispatch. \
             The floor is made of\nthese two. Each kernel is timed in a pass of its own; the {:.2} us that an empty one \
             takes longer there are taken off.",
            self.gigabytes_per_second,
            self.bytes_read as f64 / 1e6,
            self.dispatch_microseconds,
            self.pass_microseconds,
        )
    }
}

/// A step's time.
#[derive(Debug, Serialize)]
pub struct Profile {
    /// All of it in one pass.
    step_microseconds: Option<f64>,
    /// The longest first.
    kernels: Vec<KernelTime>,
}

/// GPU time of a kernel over one step, and what it did in that time at the least.
#[derive(Debug, Default, PartialEq, Serialize)]
struct KernelTime {
    kernel: String,
    dispatches: usize,
    microseconds: f64,
    bytes: f64,
    /// Multiply-adds, two operations each.
    macs: f64,
    floor_microseconds: f64,
}

impl KernelTime {
    fn add(&mut self, other: &Self) {
        self.dispatches += other.dispatches;
        self.microseconds += other.microseconds;
        self.bytes += other.bytes;
        self.macs += other.macs;
        self.floor_microseconds += other.floor_microseconds;
    }

    /// A line of the table, with the share of `all` microseconds.
    fn row(&self, all: f64) -> String {
        // A coarse clock may say that it took no time.
        let per_microsecond = |amount: f64| if self.microseconds > 0.0 { amount / self.microseconds } else { 0.0 };
        format!(
            "| {} | {} | {:.1} | {:.1}% | {:.2} | {:.0} | {:.2} | {:.1} |",
            self.kernel,
            self.dispatches,
            self.microseconds,
            100.0 * self.microseconds / all.max(f64::MIN_POSITIVE),
            self.bytes / 1e6,
            per_microsecond(self.bytes) / 1e3,
            per_microsecond(2.0 * self.macs) / 1e6,
            self.floor_microseconds,
        )
    }
}

impl Profile {
    /// `step`: nanoseconds of the whole step in one pass.
    pub fn new(times: Vec<DispatchTime>, step: Option<f64>, adapter: &AdapterSpeed) -> Self {
        let mut sums: BTreeMap<String, KernelTime> = BTreeMap::new();
        for time in times {
            // "layer3.out_proj.matvec" counts as "out_proj.matvec".
            let kernel = match time.label.split_once('.') {
                Some((layer, rest)) if layer.starts_with("layer") => rest.to_owned(),
                _ => time.label,
            };
            let one = KernelTime {
                dispatches: 1,
                microseconds: (time.nanoseconds - adapter.pass).max(0.0) / 1e3,
                bytes: time.work.bytes,
                macs: time.work.macs,
                floor_microseconds: (time.work.bytes / adapter.bytes_per_nanosecond + adapter.dispatch) / 1e3,
                ..KernelTime::default()
            };
            sums.entry(kernel).or_default().add(&one);
        }
        let mut kernels: Vec<KernelTime> = sums.into_iter().map(|(kernel, sum)| KernelTime { kernel, ..sum }).collect();
        kernels.sort_by(|a, b| b.microseconds.total_cmp(&a.microseconds));
        Self { step_microseconds: step.map(|ns| ns / 1e3), kernels }
    }
}

impl Display for Profile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(step) = self.step_microseconds {
            write!(f, ", {step:.1} us in one pass")?;
        }
        writeln!(
            f,
            ":\n\n| kernel | count | us | share | MB | GB/s | TFLOP/s | floor us |\n|---|---|---|---|---|---|---|---|"
        )?;
        let mut all = KernelTime { kernel: "all".into(), ..KernelTime::default() };
        self.kernels.iter().for_each(|k| all.add(k));
        for kernel in &self.kernels {
            writeln!(f, "{}", kernel.row(all.microseconds))?;
        }
        write!(f, "{}", all.row(all.microseconds))
    }
}

#[cfg(test)]
mod tests {
    use zebra_runtime::gpu::Amount;

    use super::*;

    #[test]
    fn layers_add_up_and_the_floor_is_bytes_and_dispatches() {
        let adapter = AdapterSpeed { bytes_per_nanosecond: 1000.0, bytes_read: 1, dispatch: 2000.0, pass: 500.0 };
        let time = |label: &str, microseconds: f64, bytes: f64| DispatchTime {
            label: label.into(),
            nanoseconds: 1000.0 * microseconds,
            work: Amount { bytes, macs: 10.0 * bytes },
        };
        let times = vec![
            time("model.embed", 0.25, 0.0),
            time("layer0.down.matvec", 10.5, 4e6),
            time("layer10.down.matvec", 6.5, 4e6),
        ];
        let profile = Profile::new(times, Some(20_000.0), &adapter);
        let down = KernelTime {
            kernel: "down.matvec".into(),
            dispatches: 2,
            microseconds: 16.0,
            bytes: 8e6,
            macs: 8e7,
            floor_microseconds: 12.0,
        };
        assert_eq!(profile.kernels[0], down);
        let table = profile.to_string();
        assert!(table.contains("20.0 us in one pass"), "{table}");
        assert!(table.contains("| down.matvec | 2 | 16.0 | 100.0% | 8.00 | 500 | 10.00 | 12.0 |"), "{table}");
        // What was shorter than an empty pass took no time.
        assert!(table.contains("| model.embed | 1 | 0.0 | 0.0% | 0.00 | 0 | 0.00 | 2.0 |"), "{table}");
        assert!(table.ends_with("| all | 3 | 16.0 | 100.0% | 8.00 | 500 | 10.00 | 14.0 |"), "{table}");
    }
}
