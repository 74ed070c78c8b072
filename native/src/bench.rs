//! `zebra bench`: prompt and decode speed, in the shape of `llama-bench`, with everything that is needed to measure it
//! again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use anyhow::{Result, bail};
use pollster::block_on;
use serde::Serialize;
use zebra_runtime::engine::{Engine, SamplingOptions};
use zebra_runtime::gpu::DispatchTime;
use zebra_runtime::model::{Row, Step, Ticket, Token};

use crate::args::BenchArgs;
use crate::load::{self, Loaded};
use crate::output;
use crate::terminal::Terminal;

/// Steps under way at once, as an answer has them.
const IN_FLIGHT: usize = 4;

/// The commit the program was built from.
const COMMIT: &str = env!("ZEBRA_COMMIT");

/// A mean with its standard deviation.
#[derive(Debug, Serialize)]
struct Speed {
    /// `pp512` or `tg128`, then the depth and the batch where they are not 0 and 1.
    test: String,
    tokens_per_second: f64,
    deviation: f64,
    /// Seconds of one repetition each.
    seconds: Vec<f64>,
}

impl Speed {
    fn new(test: String, tokens: usize, seconds: Vec<f64>) -> Self {
        let speeds: Vec<f64> = seconds.iter().map(|s| tokens as f64 / s).collect();
        let mean = speeds.iter().sum::<f64>() / speeds.len() as f64;
        let spread = speeds.iter().map(|s| (s - mean).powi(2)).sum::<f64>();
        let deviation = (spread / (speeds.len().max(2) - 1) as f64).sqrt();
        Self { test, tokens_per_second: mean, deviation, seconds }
    }
}

/// GPU time of a kernel over one step.
#[derive(Debug, Serialize)]
struct KernelTime {
    kernel: String,
    dispatches: usize,
    microseconds: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    parameters: u64,
    format: String,
    cache: String,
    context: usize,
    adapter: String,
    driver: String,
    commit: &'static str,
    version: &'static str,
    load_seconds: f64,
    first_token_seconds: f64,
    dispatches_per_token: usize,
    weight_bytes: u64,
    peak_gpu_bytes: u64,
    peak_host_bytes: Option<u64>,
    results: Vec<Speed>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    profile: BTreeMap<String, Vec<KernelTime>>,
}

pub fn run(args: &BenchArgs, adapter: Option<&str>) -> Result<()> {
    let terminal = Terminal::new(args.json);
    let slots = args.batch.iter().copied().max().unwrap_or(1);
    let deepest = args.depth.iter().copied().max().unwrap_or(0);
    let need = deepest + args.prompt.max(args.generate) + 1;
    if args.repetitions == 0 || args.batch.contains(&0) {
        bail!("--repetitions and --batch: expected at least 1, found 0");
    }
    let mut model = args.model.clone();
    model.context.get_or_insert(need.next_multiple_of(256));
    let Loaded { mut engine, seconds: load_seconds } = load::engine(&model, adapter, slots, &terminal)?;
    if need > engine.context() {
        bail!("--context: expected at least {need} for these tests, found {}", engine.context());
    }
    let mut bench = Bench { vocab: engine.config().vocab_size as u32, engine: &mut engine };
    let first_token_seconds = {
        bench.prompt(0, args.prompt.max(1))?; // warms up
        bench.prompt(0, args.prompt.max(1))?
    };
    let mut results = Vec::new();
    let mut profile = BTreeMap::new();
    for &depth in &args.depth {
        bench.fill(depth, slots)?;
        if args.prompt > 0 {
            let label = label("pp", args.prompt, depth, 1);
            terminal.note(format_args!("{label} …"));
            let seconds = (0..args.repetitions).map(|_| bench.prompt(depth, args.prompt)).collect::<Result<_>>()?;
            if args.profile {
                profile.insert(label.clone(), by_kernel(bench.profile_prompt(depth, args.prompt)?));
            }
            results.push(Speed::new(label, args.prompt, seconds));
        }
        for &batch in &args.batch {
            if args.generate == 0 {
                continue;
            }
            let label = label("tg", args.generate, depth, batch);
            terminal.note(format_args!("{label} …"));
            bench.decode(depth, batch, args.generate.min(8))?; // warms up
            let seconds =
                (0..args.repetitions).map(|_| bench.decode(depth, batch, args.generate)).collect::<Result<_>>()?;
            if args.profile {
                profile.insert(label.clone(), by_kernel(bench.profile_decode(depth, batch)?));
            }
            results.push(Speed::new(label, args.generate * batch, seconds));
        }
    }
    let plan = engine.model().plan();
    let allocated = engine.model().gpu().allocated();
    let gpu = engine.model().gpu().description();
    let report = Report {
        model: args.model.model.clone().unwrap_or_else(|| "zebra-pocket (built in)".into()),
        parameters: engine.parameters(),
        format: plan.options.preset.to_string(),
        cache: plan.options.cache.name().into(),
        context: engine.context(),
        adapter: gpu.name.clone(),
        driver: gpu.driver.clone(),
        commit: COMMIT,
        version: env!("CARGO_PKG_VERSION"),
        load_seconds,
        first_token_seconds,
        dispatches_per_token: plan.dispatches_per_token().total,
        weight_bytes: plan.tensors.buffers().iter().map(zebra_runtime::gpu::Buffer::size).sum(),
        peak_gpu_bytes: allocated.values().sum(),
        peak_host_bytes: peak_host_bytes(),
        results,
        profile,
    };
    if args.json { output::json(&report) } else { Ok(output::text(&table(&report))?) }
}

fn label(kind: &str, tokens: usize, depth: usize, batch: usize) -> String {
    let depth = if depth > 0 { format!(" @ d{depth}") } else { String::new() };
    let batch = if batch > 1 { format!(" x {batch}") } else { String::new() };
    format!("{kind}{tokens}{depth}{batch}")
}

struct Bench<'a> {
    engine: &'a mut Engine,
    vocab: u32,
}

impl Bench<'_> {
    /// A token for a position: spread over the vocabulary, the same in every run.
    fn token(&self, position: usize) -> Token {
        Token::Id((position as u32).wrapping_mul(2_654_435_761) % self.vocab)
    }

    fn rows(&self, slot: usize, first: usize, count: usize) -> Vec<Row> {
        (first..first + count)
            .map(|p| Row { slot: slot as u32, token: self.token(p), position: p as u32, logits: false, sample: false })
            .collect()
    }

    /// Reads `count` tokens from position `first` on; the last one samples when `sample`.
    fn read(&mut self, slot: usize, first: usize, count: usize, sample: bool) -> Result<()> {
        let mut rows = self.rows(slot, first, count);
        if let Some(last) = rows.last_mut().filter(|_| sample) {
            last.logits = true;
            last.sample = true;
        }
        let chunk = self.engine.model().plan().options.max_rows as usize;
        let model = self.engine.model_mut();
        let mut waiting: Option<Ticket> = None;
        for part in rows.chunks(chunk) {
            if let Some(ticket) = waiting.replace(model.submit(&Step { rows: part.to_vec() })?) {
                block_on(model.wait(ticket))?;
            }
        }
        if let Some(ticket) = waiting {
            block_on(model.wait(ticket))?;
        }
        Ok(())
    }

    /// Fills every slot to a depth.
    fn fill(&mut self, depth: usize, slots: usize) -> Result<()> {
        for slot in 0..slots {
            self.engine.reset(slot);
            self.read(slot, 0, depth, false)?;
        }
        Ok(())
    }

    /// Seconds to read a prompt at a depth and know its first token.
    fn prompt(&mut self, depth: usize, count: usize) -> Result<f64> {
        self.sampling(0, depth + count - 1)?;
        let start = Instant::now();
        self.read(0, depth, count, true)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn profile_prompt(&mut self, depth: usize, count: usize) -> Result<Vec<DispatchTime>> {
        let chunk = self.engine.model().plan().options.max_rows as usize;
        let rows = self.rows(0, depth, count.min(chunk));
        Ok(block_on(self.engine.model_mut().profile(&Step { rows }))?)
    }

    fn sampling(&mut self, slot: usize, position: usize) -> Result<()> {
        let settings = SamplingOptions::greedy().settings(self.vocab as usize, &[], u32::MAX)?;
        let history = vec![0; position + 1];
        self.engine.model_mut().set_sampling(slot as u32, &settings, &history, 0);
        Ok(())
    }

    /// Seconds to decode `count` tokens in `batch` slots at a depth.
    fn decode(&mut self, depth: usize, batch: usize, count: usize) -> Result<f64> {
        for slot in 0..batch {
            self.sampling(slot, depth)?;
        }
        let start = Instant::now();
        let mut under_way = VecDeque::new();
        for i in 0..count {
            let rows = self.decode_rows(depth + i, batch, i == 0);
            let model = self.engine.model_mut();
            under_way.push_back(model.submit(&Step { rows })?);
            if under_way.len() == IN_FLIGHT {
                if let Some(ticket) = under_way.pop_front() {
                    block_on(model.wait(ticket))?;
                }
            }
        }
        for ticket in under_way {
            block_on(self.engine.model_mut().wait(ticket))?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn decode_rows(&self, position: usize, batch: usize, first: bool) -> Vec<Row> {
        (0..batch)
            .map(|slot| Row {
                slot: slot as u32,
                token: if first { self.token(position) } else { Token::FromSlot },
                position: position as u32,
                logits: true,
                sample: true,
            })
            .collect()
    }

    fn profile_decode(&mut self, depth: usize, batch: usize) -> Result<Vec<DispatchTime>> {
        let rows = self.decode_rows(depth, batch, true);
        Ok(block_on(self.engine.model_mut().profile(&Step { rows }))?)
    }
}

/// Times summed over dispatches of the same kernel and the same place in a layer, the longest first.
fn by_kernel(times: Vec<DispatchTime>) -> Vec<KernelTime> {
    let mut sums: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    for time in times {
        // "layer3.out_proj.matvec" counts as "out_proj.matvec".
        let name = match time.label.split_once('.') {
            Some((layer, rest)) if layer.starts_with("layer") => rest.to_owned(),
            _ => time.label.clone(),
        };
        let sum = sums.entry(name).or_default();
        sum.0 += 1;
        sum.1 += time.nanoseconds / 1000.0;
    }
    let mut all: Vec<KernelTime> = sums
        .into_iter()
        .map(|(kernel, (dispatches, microseconds))| KernelTime { kernel, dispatches, microseconds })
        .collect();
    all.sort_by(|a, b| b.microseconds.total_cmp(&a.microseconds));
    all
}

/// The most memory this process ever had, where the system tells it.
fn peak_host_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn table(r: &Report) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(format!("{} on {} ({})", r.model, r.adapter, r.driver));
    line(format!(
        "commit {} · load {:.2} s · first token of the prompt {:.1} ms · {} dispatches a token",
        r.commit,
        r.load_seconds,
        1e3 * r.first_token_seconds,
        r.dispatches_per_token,
    ));
    let host = r.peak_host_bytes.map_or("not measured".into(), |b| format!("{:.1} MiB", mib(b)));
    line(format!(
        "GPU memory {:.1} MiB (weights {:.1}) · peak host memory {host}",
        mib(r.peak_gpu_bytes),
        mib(r.weight_bytes)
    ));
    line(String::new());
    line("| parameters | format | cache | test | tokens/s |".into());
    line("|---|---|---|---|---|".into());
    for s in &r.results {
        line(format!(
            "| {:.2} B | {} | {} | {} | {:.1} ± {:.1} |",
            r.parameters as f64 / 1e9,
            r.format,
            r.cache,
            s.test,
            s.tokens_per_second,
            s.deviation,
        ));
    }
    for (test, kernels) in &r.profile {
        line(format!("\nGPU time of one step of {test}:"));
        for k in kernels {
            line(format!("  {:>10.1} us  {:>3} x {}", k.microseconds, k.dispatches, k.kernel));
        }
    }
    out
}
