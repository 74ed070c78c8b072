//! One GPU for all tests of a process, buffers that show what was written to them, and step tables.

use std::any::Any;
use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use zebra_runtime::gpu::{Buffer, Dispatch, Gpu, Purpose, StepShape};
use zebra_runtime::kernels::{Matrix, Target, Twins};

use crate::reference::step::{Row, Segment, Step};
use crate::reference::weight::Weight;

/// The NaN that outputs are filled with.
pub const POISON: u32 = 0x7fc0_babe;

/// Words after each output that must stay as they are, and what they hold.
const GUARD_WORDS: usize = 64;
const GUARD: u32 = 0x7fc1_600d;

type Job = Box<dyn FnOnce(&Gpu) + Send>;

/// Runs `work` on the one thread that holds the GPU; a panic in it is the caller's.
///
/// # Panics
/// When there is no adapter: a test that needs one fails.
pub fn on_gpu<R: Send + 'static>(work: impl FnOnce(&Gpu) -> R + Send + 'static) -> R {
    static JOBS: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);
    let (answer, wait) = mpsc::channel::<Result<R, Box<dyn Any + Send>>>();
    let job: Job = Box::new(move |gpu| {
        // The receiver waits below until it has an answer.
        let _ = answer.send(catch_unwind(AssertUnwindSafe(|| work(gpu))));
    });
    let sent = {
        let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get_or_insert_with(start).send(job)
    };
    assert!(sent.is_ok(), "the GPU's thread ended: no adapter, see above");
    match wait.recv() {
        Ok(Ok(result)) => result,
        // Said again here, where the test runner shows it.
        Ok(Err(panic)) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(message), _) => panic!("{message}"),
            (_, Some(message)) => panic!("{message}"),
            _ => resume_unwind(panic),
        },
        Err(_) => panic!("the GPU's thread ended: no adapter, see above"),
    }
}

fn start() -> mpsc::Sender<Job> {
    let (jobs, queue) = mpsc::channel::<Job>();
    thread::spawn(move || {
        let gpu = pollster::block_on(Gpu::open(None)).unwrap_or_else(|e| panic!("{e}"));
        let d = gpu.description();
        report(&format!(
            "adapter: {} ({}, {}, subgroups: {}, cooperative matrices: {})",
            d.name,
            d.backend,
            d.driver,
            gpu.has_subgroups(),
            gpu.cooperative().map_or("none".into(), |c| format!("{0} x {0}, {1} lanes", c.side, c.lanes))
        ));
        for job in queue {
            job(&gpu);
        }
    });
    jobs
}

/// Says what was compared. Tests say it even when they pass, so it goes past the test runner's capture.
pub fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("stdout");
}

/// What kernels are chosen for on this GPU, once for each part that sums over lanes.
pub fn targets(gpu: &Gpu, max_rows: u32) -> Vec<Target> {
    let plain = Target { twins: Twins::portable(), max_rows, slots: max_rows, limits: gpu.limits() };
    let mut all = vec![plain];
    if gpu.has_subgroups() {
        all.push(Target { twins: Twins { subgroups: true, ..plain.twins }, ..plain });
    }
    all
}

/// The buffers of one case.
pub struct Bench<'g> {
    gpu: &'g Gpu,
    uploads: RefCell<Vec<(Buffer, u64, Vec<u8>)>>,
    outputs: RefCell<Vec<(Buffer, usize)>>,
}

impl<'g> Bench<'g> {
    pub fn new(gpu: &'g Gpu) -> Self {
        Self { gpu, uploads: RefCell::default(), outputs: RefCell::default() }
    }

    fn upload(&self, buffer: &Buffer, offset: u64, bytes: Vec<u8>) {
        self.uploads.borrow_mut().push((buffer.clone(), offset, bytes));
    }

    /// A buffer that a kernel reads.
    pub fn words(&self, label: &str, words: &[u32]) -> Buffer {
        let buffer = Buffer::new(label, 4 * words.len() as u64, Purpose::Control);
        self.upload(&buffer, 0, bytemuck::cast_slice(words).to_vec());
        buffer
    }

    /// A buffer that a kernel reads.
    pub fn floats(&self, label: &str, values: &[f32]) -> Buffer {
        self.words(label, bytemuck::cast_slice(values))
    }

    /// A buffer that a kernel writes, filled with [`POISON`].
    pub fn output(&self, label: &str, words: usize) -> Buffer {
        self.state_words(label, &vec![POISON; words])
    }

    /// A buffer that a kernel reads and writes.
    pub fn state(&self, label: &str, values: &[f32]) -> Buffer {
        self.state_words(label, bytemuck::cast_slice(values))
    }

    /// A buffer that a kernel reads and writes.
    pub fn state_words(&self, label: &str, words: &[u32]) -> Buffer {
        let mut all = words.to_vec();
        all.extend([GUARD; GUARD_WORDS]);
        let buffer = self.words(label, &all);
        self.outputs.borrow_mut().push((buffer.clone(), words.len()));
        buffer
    }

    /// The step's tables.
    pub fn step(&self, step: &Step, max_rows: u32) -> Buffer {
        self.words("step", &step_words(step, max_rows))
    }

    /// A weight, cut as `target`'s limits want it.
    pub fn matrix(&self, label: &str, weight: &Weight, target: Target) -> Matrix {
        let matrix = Matrix::new(label, weight.format, weight.n, weight.k, &target.limits);
        let row = Matrix::row_bytes(weight.format, weight.k) as usize;
        assert_eq!(weight.words.len(), row * weight.n, "the layout's size of a row");
        let mut at = 0;
        for (buffer, offset, rows) in matrix.places(0, weight.n) {
            self.upload(buffer, offset, weight.words[at..at + rows * row].to_vec());
            at += rows * row;
        }
        if let Some(scales) = matrix.scales() {
            let mut bytes = weight.scales.clone();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            self.upload(scales, 0, bytes);
        }
        matrix
    }

    /// Runs dispatches in order and checks what lies behind every output.
    pub fn run(&self, dispatches: &[Dispatch], shape: StepShape) -> Result<(), String> {
        pollster::block_on(async {
            let uploads = self.uploads.take();
            let buffers: Vec<Buffer> = uploads.iter().map(|(b, ..)| b.clone()).collect();
            self.gpu.allocate(&buffers).await.map_err(|e| e.to_string())?;
            for (buffer, offset, bytes) in &uploads {
                self.gpu.write(buffer, *offset, bytes);
            }
            let program = self.gpu.compile(dispatches).await.map_err(|e| e.to_string())?;
            program.run(self.gpu, shape).await.map_err(|e| e.to_string())?;
            let outputs = self.outputs.borrow().clone();
            for (buffer, words) in &outputs {
                let from = 4 * *words as u64;
                let guard =
                    self.gpu.read(buffer, from..from + 4 * GUARD_WORDS as u64).await.map_err(|e| e.to_string())?;
                let guard: Vec<u32> = bytemuck::pod_collect_to_vec(&guard);
                if let Some(i) = guard.iter().position(|w| *w != GUARD) {
                    return Err(format!("{}: word {i} behind its end was written", buffer.label()));
                }
            }
            Ok(())
        })
    }

    /// What an output holds, without its guard.
    pub fn read_words(&self, buffer: &Buffer) -> Vec<u32> {
        let words = self.outputs.borrow().iter().find(|(b, _)| b.same(buffer)).map(|(_, n)| *n);
        let words = words.unwrap_or_else(|| panic!("{buffer:?} is no output of this case"));
        let bytes = pollster::block_on(self.gpu.read(buffer, 0..4 * words as u64)).unwrap_or_else(|e| panic!("{e}"));
        bytemuck::pod_collect_to_vec(&bytes)
    }

    /// What an output holds, without its guard.
    pub fn read(&self, buffer: &Buffer) -> Vec<f32> {
        self.read_words(buffer).into_iter().map(f32::from_bits).collect()
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let outputs: Vec<Buffer> = self.outputs.borrow().iter().map(|(b, _)| b.clone()).collect();
        self.gpu.release(&outputs);
    }
}

/// The words of a step's tables: counts, then rows, segments and logit rows, `max_rows` vec4 of each.
pub fn step_words(step: &Step, max_rows: u32) -> Vec<u32> {
    let max = max_rows as usize;
    assert!(step.rows.len() <= max && step.logit_rows.len() <= max, "the step has over {max} rows");
    let mut words = vec![0; 4 * (1 + 3 * max)];
    words[0] = step.rows.len() as u32;
    words[1] = step.segments.len() as u32;
    words[2] = step.logit_rows.len() as u32;
    for (i, row) in step.rows.iter().enumerate() {
        let bits = u32::from(row.live) | (row.offset as u32) << 1;
        words[4 * (1 + i)..][..4].copy_from_slice(&[row.token, row.slot as u32, row.position as u32, bits]);
    }
    for (i, s) in step.segments.iter().enumerate() {
        words[4 * (1 + max + i)..][..3].copy_from_slice(&[s.first as u32, s.count as u32, s.slot as u32]);
    }
    for (i, &row) in step.logit_rows.iter().enumerate() {
        let at = 4 * (1 + 2 * max + i);
        (words[at], words[at + 2]) = (row as u32, step.rows[row].slot as u32);
    }
    words
}

/// The grid's shape of a step.
pub fn shape_of(step: &Step) -> StepShape {
    StepShape {
        rows: step.rows.len() as u32,
        segments: step.segments.len() as u32,
        logit_rows: step.logit_rows.len() as u32,
        longest: step.rows.iter().map(|r| r.position as u32 + 1).max().unwrap_or(0),
    }
}

/// Builds a step out of segments.
#[derive(Debug, Clone, Default)]
pub struct StepBuilder(Step);

impl StepBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// `count` rows of `slot` from `position` on.
    pub fn segment(mut self, slot: usize, position: usize, count: usize) -> Self {
        self.push(slot, position, count, true);
        self
    }

    /// Rows that run but must change no state.
    pub fn frozen(mut self, slot: usize, position: usize, count: usize) -> Self {
        self.push(slot, position, count, false);
        self
    }

    /// Asks for the logits of rows.
    pub fn logits(mut self, rows: &[usize]) -> Self {
        self.0.logit_rows.extend(rows);
        self
    }

    fn push(&mut self, slot: usize, position: usize, count: usize, live: bool) {
        let first = self.0.rows.len();
        self.0.segments.push(Segment { first, count, slot });
        for offset in 0..count {
            let token = (first + offset) as u32;
            self.0.rows.push(Row { token, slot, position: position + offset, live, offset });
        }
    }

    pub fn build(self) -> Step {
        self.0
    }
}
