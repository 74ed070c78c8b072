//! `zebra bench`: prompt and decode speed, in the shape of `llama-bench`, with everything that is needed to measure it
//! again; where the GPU's time goes; two such records side by side; the paper's comparison.

mod compare;
mod paper;
mod profile;
mod report;

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Result, bail};
use pollster::block_on;
use zebra_runtime::engine::{Engine, SUBMITS_AHEAD, SamplingOptions, steps_in_submit};
use zebra_runtime::model::{AdapterSpeed, Row, Step, Ticket, Token};

use self::profile::{Adapter, Profile};
use self::report::{Allocator, Report, Speed};
use crate::args::{BenchArgs, BenchCommand};
use crate::load::{self, Loaded};
use crate::staging::check_interrupt;
use crate::terminal::Terminal;
use crate::{output, twins};

/// Tokens before a measurement of decoding.
const WARM_UP: usize = 8;

/// Times that a step's GPU time is taken; the median counts.
const TIMED: usize = 9;

/// The commit the program was built from.
const COMMIT: &str = env!("ZEBRA_COMMIT");

pub fn run(args: &BenchArgs, adapter: Option<&str>) -> Result<()> {
    if let Some(BenchCommand::Paper(args)) = &args.command {
        return paper::run(args, adapter);
    }
    let terminal = Terminal::new(args.json);
    if let Some(files) = &args.compare {
        return compare::run(files, &terminal);
    }
    let slots = args.batch.iter().copied().max().unwrap_or(1);
    let deepest = args.depth.iter().copied().max().unwrap_or(0);
    let need = deepest + args.prompt.max(args.generate) + 1;
    if args.repetitions == 0 || args.batch.contains(&0) {
        bail!("--repetitions and --batch: expected at least 1, found 0");
    }
    let mut model = args.model.clone();
    model.context.get_or_insert(need.next_multiple_of(256));
    let Loaded { mut engine, kernels, seconds: load_seconds } = load::engine(&model, adapter, slots, &terminal)?;
    if need > engine.context() {
        bail!("--context: expected at least {need} for these tests, found {}", engine.context());
    }
    let mut bench = Bench { vocab: engine.config().vocab_size as u32, engine: &mut engine };
    let first_token_seconds = {
        bench.prompt(0, args.prompt.max(1))?; // warms up
        bench.prompt(0, args.prompt.max(1))?
    };
    let adapter_speed = if args.profile { Some(block_on(bench.engine.model().adapter_speed())?) } else { None };
    let mut results = Vec::new();
    for &depth in &args.depth {
        bench.fill(depth, slots)?;
        if args.prompt > 0 {
            let label = label("pp", args.prompt, depth, 1);
            terminal.note(format_args!("{label} …"));
            let seconds = (0..args.repetitions).map(|_| bench.prompt(depth, args.prompt)).collect::<Result<_>>()?;
            let mut result = Speed::new(label, args.prompt, seconds);
            if let Some(adapter) = &adapter_speed {
                let step = bench.prompt_step(depth, args.prompt);
                result.profile = Some(bench.profile(&step, adapter)?);
            }
            results.push(result);
        }
        for &batch in &args.batch {
            if args.generate == 0 {
                continue;
            }
            let label = label("tg", args.generate, depth, batch);
            terminal.note(format_args!("{label} …"));
            let count = args.generate.min(WARM_UP);
            bench.decode(depth, batch, count, 1)?; // warms up
            let steps = steps_in_submit(1e3 * bench.decode(depth, batch, count, 1)? / count as f64);
            let seconds = (0..args.repetitions)
                .map(|_| bench.decode(depth, batch, args.generate, steps))
                .collect::<Result<_>>()?;
            let mut result = Speed::new(label, args.generate * batch, seconds);
            let step = bench.decode_step(depth, batch, true);
            if let Some(nanoseconds) = bench.gpu_time(&step)? {
                result.gpu_step(nanoseconds, args.generate);
            }
            if let Some(adapter) = &adapter_speed {
                result.profile = Some(bench.profile(&step, adapter)?);
            }
            results.push(result);
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
        kernels: twins::describe(plan.options.twins, kernels),
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
        allocator_bytes: engine.model().gpu().held().map(|held| Allocator { used: held.used, reserved: held.reserved }),
        peak_host_bytes: peak_host_bytes(),
        results,
        adapter_speed: adapter_speed.as_ref().map(Adapter::new),
    };
    if args.json { output::json(&report) } else { Ok(output::text(&report.table())?) }
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
    fn id(&self, position: usize) -> u32 {
        (position as u32).wrapping_mul(2_654_435_761) % self.vocab
    }

    fn token(&self, position: usize) -> Token {
        Token::Id(self.id(position))
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
        self.read_rows(&rows)
    }

    /// Reads rows of prompts, as many in a step as it holds.
    fn read_rows(&mut self, rows: &[Row]) -> Result<()> {
        let chunk = self.engine.model().plan().options.max_rows as usize;
        let model = self.engine.model_mut();
        let mut waiting: Option<Ticket> = None;
        for part in rows.chunks(chunk) {
            check_interrupt()?;
            if let Some(ticket) = waiting.replace(model.submit(&Step { rows: part.to_vec() })?) {
                block_on(model.wait(ticket))?;
            }
        }
        if let Some(ticket) = waiting {
            block_on(model.wait(ticket))?;
        }
        Ok(())
    }

    /// Fills every slot to a depth: one reads, the others get its state.
    fn fill(&mut self, depth: usize, slots: usize) -> Result<()> {
        for slot in 0..slots {
            self.engine.reset(slot);
        }
        if depth == 0 {
            return Ok(());
        }
        self.read(0, 0, depth, false)?;
        if slots == 1 {
            return Ok(());
        }
        self.engine.assume_read(0, (0..depth).map(|p| self.id(p)).collect());
        let filled = block_on(self.engine.snapshot(0))?;
        for slot in 1..slots {
            self.engine.restore(slot, &filled)?;
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

    /// The first step of a prompt.
    fn prompt_step(&self, depth: usize, count: usize) -> Step {
        let chunk = self.engine.model().plan().options.max_rows as usize;
        Step { rows: self.rows(0, depth, count.min(chunk)) }
    }

    /// Where the GPU's time goes in a step.
    fn profile(&mut self, step: &Step, adapter: &AdapterSpeed) -> Result<Profile> {
        let whole = self.gpu_time(step)?;
        Ok(Profile::new(block_on(self.engine.model_mut().profile(step))?, whole, adapter))
    }

    /// Nanoseconds of GPU time of a step, where the adapter can tell.
    fn gpu_time(&mut self, step: &Step) -> Result<Option<f64>> {
        if !self.engine.model().gpu().has_timestamps() {
            return Ok(None);
        }
        let model = self.engine.model_mut();
        let mut times = (0..TIMED).map(|_| block_on(model.time(step))).collect::<Result<Vec<f64>, _>>()?;
        times.sort_by(f64::total_cmp);
        Ok(Some(times[TIMED / 2]))
    }

    fn sampling(&mut self, slot: usize, position: usize) -> Result<()> {
        let settings = SamplingOptions::greedy().settings(self.vocab as usize, &[], u32::MAX)?;
        let history = vec![0; position + 1];
        self.engine.model_mut().set_sampling(slot as u32, &settings, &history, 0);
        Ok(())
    }

    /// Seconds to decode `count` tokens in `batch` slots at a depth, as an answer does: the first step by itself, then so
    /// many of them in a submit.
    fn decode(&mut self, depth: usize, batch: usize, count: usize, steps: usize) -> Result<f64> {
        for slot in 0..batch {
            self.sampling(slot, depth)?;
        }
        let start = Instant::now();
        let mut under_way = VecDeque::new();
        let mut done = 0;
        while done < count {
            check_interrupt()?;
            let step = self.decode_step(depth + done, batch, done == 0);
            let steps = if done == 0 { 1 } else { steps.min(count - done) };
            done += steps;
            let model = self.engine.model_mut();
            under_way.push_back(model.submit_steps(&step, steps)?);
            if under_way.len() == SUBMITS_AHEAD {
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

    fn decode_step(&self, position: usize, batch: usize, first: bool) -> Step {
        let rows = (0..batch)
            .map(|slot| Row {
                slot: slot as u32,
                token: if first { self.token(position) } else { Token::FromSlot },
                position: position as u32,
                logits: true,
                sample: true,
            })
            .collect();
        Step { rows }
    }
}

/// The most memory this process ever had, where the system tells it.
fn peak_host_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
