//! A planned model made real: weights loaded, programs compiled, steps submitted and their results read back.

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, try_join};

use super::plan::{Lists, Mark, Plan, PlanOptions};
use super::state::Kept;
use super::tensors::Load;
use super::work::Rows;
use crate::gpu::{Buffer, DispatchTime, Gpu, Pending, Program, Ring, Run, StepShape, StepSize};
use crate::kernels::Matrix;
use crate::kernels::embed::FROM_SLOT;
use crate::kernels::sample::{SLOT_BIAS, SLOT_HISTORY, SLOT_STOPS, SampleSettings, Sampled};
use crate::weights::{Checkpoint, MatrixChunk, MatrixSink};
use crate::{Error, Result};

/// Uploads that may be queued before the GPU is waited for: staging memory is host memory.
const MOST_QUEUED: u64 = 16 << 20;

/// Steps that one submit holds at most. Each more hides less of what a submit costs the CPU and leaves idle on the GPU, 70
/// us and a tenth of that beside a step of 700 us, and holds its first tokens back for longer.
pub const MOST_STEPS: usize = 4;

/// The token of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    Id(u32),
    /// The one the sampler left in the slot, at the position it left there.
    FromSlot,
}

/// One row of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub slot: u32,
    pub token: Token,
    /// Absolute position; for [`Token::FromSlot`] the largest it can be.
    pub position: u32,
    /// Its logits are wanted.
    pub logits: bool,
    /// The slot's next token is drawn from them.
    pub sample: bool,
}

/// What one step runs. Rows of one slot stand together, in the order of their positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    pub rows: Vec<Row>,
}

impl Step {
    /// How much it holds of what a dispatch's cost grows with.
    fn size(&self, shape: StepShape) -> StepSize {
        let context = |row: &Row| u64::from(row.position) + 1;
        let ends = self.rows.chunk_by(|a, b| a.slot == b.slot).filter_map(|rows| rows.last());
        StepSize {
            shape,
            row_positions: self.rows.iter().map(context).sum(),
            segment_positions: ends.map(context).sum(),
        }
    }
}

/// A submit whose sampled tokens come back.
#[must_use]
#[derive(Debug)]
pub struct Ticket(Pending);

/// What [`Model::taps`] saw.
#[derive(Debug)]
pub struct Taps {
    /// The residual stream `[rows][hidden]` by the name of its mark.
    pub residuals: Vec<(String, Vec<Vec<f32>>)>,
    /// `[logit rows][vocab]`.
    pub logits: Vec<Vec<f32>>,
}

/// A model on the GPU.
pub struct Model {
    gpu: Gpu,
    plan: Plan,
    /// Of the plan's lists single, narrow, batch and wide.
    programs: [Programs; 4],
    sampling: Program,
    /// The request as the GPU has it, so that a step equal to the last is not written again.
    last_request: Vec<[u32; 4]>,
    /// Where sampled tokens come back.
    ring: Ring,
}

struct Programs {
    body: Program,
    head: Program,
    marks: Vec<Mark>,
}

impl Programs {
    async fn new(gpu: &Gpu, lists: &Lists) -> Result<Self> {
        Ok(Self {
            body: gpu.compile(&lists.body).await?,
            head: gpu.compile(&lists.head).await?,
            marks: lists.marks.clone(),
        })
    }
}

/// Compiles what a plan lists: for steps of each width, and the sampling.
async fn compile(gpu: &Gpu, plan: &Plan) -> Result<([Programs; 4], Program)> {
    let single = Programs::new(gpu, &plan.single).await?;
    let narrow = Programs::new(gpu, &plan.narrow).await?;
    let batch = Programs::new(gpu, &plan.batch).await?;
    let wide = Programs::new(gpu, &plan.wide).await?;
    Ok(([single, narrow, batch, wide], gpu.compile(&plan.sampling).await?))
}

impl Model {
    /// Allocates a plan's buffers, loads the checkpoint's weights into them and compiles its programs, both at a time
    /// where the target can: a browser compiles while it downloads. `progress` hears (bytes done, bytes in all) of
    /// weights.
    pub async fn load(
        gpu: Gpu,
        checkpoint: &Checkpoint<'_>,
        plan: Plan,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        gpu.allocate(&plan.buffers()).await?;
        let ((), programs) = try_join(upload(&gpu, checkpoint, &plan, progress), compile(&gpu, &plan)).await?;
        Ok(Self::new(gpu, plan, programs))
    }

    /// A model whose weights are zeros: for those who want to know how long a step takes.
    pub async fn of_zeros(gpu: Gpu, plan: Plan) -> Result<Self> {
        let made = async {
            gpu.allocate(&plan.buffers()).await?;
            compile(&gpu, &plan).await
        };
        match made.await {
            Ok(programs) => Ok(Self::new(gpu, plan, programs)),
            Err(error) => {
                gpu.release(&plan.buffers());
                Err(error)
            }
        }
    }

    fn new(gpu: Gpu, plan: Plan, (programs, sampling): ([Programs; 4], Program)) -> Self {
        let ring = Ring::new(MOST_STEPS as u64 * plan.sample.sampled.size());
        Self { gpu, plan, programs, sampling, last_request: Vec::new(), ring }
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Sets how a slot samples, and that its next answer begins at `answer_index`. `history` are the tokens of its
    /// context so far.
    pub fn set_sampling(&mut self, slot: u32, settings: &SampleSettings, history: &[u32], answer_index: u32) {
        let buffers = &self.plan.sample;
        let at = u64::from(slot);
        let write = |buffer: &Buffer, size: u64, bytes: &[u8]| self.gpu.write(buffer, at * size, bytes);
        write(&buffers.slots, 16, bytemuck::cast_slice(&[0, history.len() as u32, 1, answer_index]));
        write(&buffers.settings, size_of_val(&settings.slot) as u64, bytemuck::bytes_of(&settings.slot));
        write(&buffers.bias, SLOT_BIAS as u64 * 8, bytemuck::cast_slice(&settings.bias));
        write(&buffers.stops, SLOT_STOPS as u64 * 4, bytemuck::cast_slice(&settings.stops));
        let mut ring = vec![0u32; SLOT_HISTORY];
        for (position, token) in history.iter().enumerate().skip(history.len().saturating_sub(SLOT_HISTORY)) {
            ring[position % SLOT_HISTORY] = *token;
        }
        write(&buffers.history, SLOT_HISTORY as u64 * 4, bytemuck::cast_slice(&ring));
    }

    /// Submits a step and returns at once.
    ///
    /// # Panics
    /// When a row is outside of the plan (slot, position, token, number of rows): the engine checks before.
    pub fn submit(&mut self, step: &Step) -> Result<Ticket> {
        self.submit_steps(step, 1)
    }

    /// Submits a step and those that follow it, `steps` in all: the same rows, each a position further on. Where there are
    /// more than one, all tokens come from their slots.
    ///
    /// # Panics
    /// As [`Model::submit`]; for other rows than these, no step or more than [`MOST_STEPS`].
    pub fn submit_steps(&mut self, step: &Step, steps: usize) -> Result<Ticket> {
        assert!((1..=MOST_STEPS).contains(&steps), "{steps} steps in one submit");
        let further = steps as u32 - 1;
        let follows = |row: &Row| row.token == Token::FromSlot && row.position + further < self.plan.options.context;
        assert!(steps == 1 || step.rows.iter().all(follows), "rows that {further} more steps cannot follow");
        let first = self.request(step);
        let shapes: Vec<StepShape> = (0..=further).map(|i| StepShape { longest: first.longest + i, ..first }).collect();
        // Of fields, not of self: the ring is borrowed beside them.
        let runs = runs(step, first, &self.plan.options, &self.programs, &self.sampling);
        let bytes = u64::from(first.logit_rows) * size_of::<Sampled>() as u64;
        Ok(Ticket(self.ring.submit(&self.gpu, &runs, &shapes, &self.plan.sample.sampled, bytes)?))
    }

    /// What the logit rows of a submit sampled, in their order, one step after the other.
    pub async fn wait(&mut self, ticket: Ticket) -> Result<Vec<Sampled>> {
        Ok(bytemuck::pod_collect_to_vec(&self.ring.wait(&self.gpu, ticket.0).await?))
    }

    /// Runs a step and returns the logits of the rows that asked, `[logit rows][vocab]`.
    pub async fn logits(&mut self, step: &Step, vocab: usize) -> Result<Vec<Vec<f32>>> {
        let ticket = self.submit(step)?;
        let count = self.wait(ticket).await?.len();
        self.read_rows(&self.plan.work.logits, count, vocab).await
    }

    /// As [`Model::logits`], and the residual stream `[rows][hidden]` after the embedding and at each mark.
    pub async fn taps(&mut self, step: &Step, hidden: usize, vocab: usize) -> Result<Taps> {
        let shape = self.request(step);
        let mut marks = vec![Mark { at: self.embed_dispatches(), name: "embed".into() }];
        marks.extend(self.programs(shape).marks.iter().cloned());
        let mut residuals = Vec::new();
        let mut from = 0;
        for mark in marks {
            self.programs(shape).body.run_range(&self.gpu, shape, from..mark.at).await?;
            from = mark.at;
            residuals.push((mark.name, self.read_rows(&self.plan.work.x, step.rows.len(), hidden).await?));
        }
        self.head(shape).run(&self.gpu, shape).await?;
        let logits = self.read_rows(&self.plan.work.logits, shape.logit_rows as usize, vocab).await?;
        Ok(Taps { residuals, logits })
    }

    async fn read_rows(&self, rows: &Rows, count: usize, width: usize) -> Result<Vec<Vec<f32>>> {
        let bytes = self.gpu.read(&rows.buffer, 0..(4 * count * rows.stride) as u64).await?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(values.chunks_exact(rows.stride).map(|row| row[..width].to_vec()).collect())
    }

    /// GPU time of each dispatch of a step, each in a pass of its own.
    ///
    /// # Errors
    /// [`Error::Limit`] when the device has no timestamps.
    pub async fn profile(&mut self, step: &Step) -> Result<Vec<DispatchTime>> {
        let size = step.size(self.request(step));
        let mut times = Vec::new();
        for (program, _) in runs(step, size.shape, &self.plan.options, &self.programs, &self.sampling) {
            times.extend(program.profile(&self.gpu, size).await?);
        }
        Ok(times)
    }

    /// Nanoseconds of GPU time of a whole step, run as [`Model::submit`] runs it.
    ///
    /// # Errors
    /// [`Error::Limit`] when the device has no timestamps.
    pub async fn time(&mut self, step: &Step) -> Result<f64> {
        let shape = self.request(step);
        self.gpu.time(&runs(step, shape, &self.plan.options, &self.programs, &self.sampling), shape).await
    }

    /// Zeroes the recurrent state of a slot. Its cached rows need nothing: they are kept by length.
    pub fn clear(&mut self, slot: u32) {
        for carried in &self.plan.state.layers {
            if let Kept::Whole { bytes } = carried.kept {
                let (buffer, offset) = carried.of_slot(slot);
                self.gpu.clear(buffer, offset, bytes);
            }
        }
    }

    /// Dispatches before the first layer.
    fn embed_dispatches(&self) -> usize {
        self.plan.narrow.body.iter().take_while(|d| d.kernel.name == "embed").count()
    }

    fn head(&self, shape: StepShape) -> &Program {
        &pick(shape.logit_rows, shape.logit_rows, &self.plan.options, &self.programs).head
    }

    fn programs(&self, shape: StepShape) -> &Programs {
        pick(shape.rows, shape.segments, &self.plan.options, &self.programs)
    }

    /// Writes the step's tables for the GPU, unless it has them, and tells the step's shape.
    fn request(&mut self, step: &Step) -> StepShape {
        let options = &self.plan.options;
        let max = options.max_rows as usize;
        assert!(!step.rows.is_empty() && step.rows.len() <= max, "a step of {} rows, {max} fit", step.rows.len());
        let mut rows: Vec<[u32; 4]> = Vec::with_capacity(step.rows.len());
        let mut segments: Vec<[u32; 4]> = Vec::new();
        let mut logit_rows: Vec<[u32; 4]> = Vec::new();
        let mut longest = 0;
        for (r, row) in step.rows.iter().enumerate() {
            assert!(row.slot < options.slots && row.position < options.context, "row {r} is outside of the plan");
            let offset = match segments.last_mut() {
                Some(last) if last[2] == row.slot => {
                    last[1] += 1;
                    last[1] - 1
                }
                _ => {
                    segments.push([r as u32, 1, row.slot, 0]);
                    0
                }
            };
            let token = match row.token {
                Token::Id(id) => id,
                Token::FromSlot => FROM_SLOT,
            };
            rows.push([token, row.slot, row.position, 1 | offset << 1]);
            if row.logits {
                logit_rows.push([r as u32, u32::from(row.sample), row.slot, 0]);
            }
            longest = longest.max(row.position + 1);
        }
        assert!(logit_rows.len() <= options.logit_rows as usize, "{} rows ask for logits", logit_rows.len());
        let shape = StepShape {
            rows: rows.len() as u32,
            segments: segments.len() as u32,
            logit_rows: logit_rows.len() as u32,
            longest,
        };
        // Rows that come from their slots do not name their position, so that decoding goes on without a write.
        let mut table = vec![[shape.rows, shape.segments, shape.logit_rows, 0]];
        table.extend(rows.iter().map(|r| if r[0] == FROM_SLOT { [r[0], r[1], 0, r[3]] } else { *r }));
        table.extend(segments.iter().chain(&logit_rows));
        if table != self.last_request {
            let at = |row: usize| 16 * row as u64;
            let write = |first: usize, part: &[[u32; 4]]| {
                if !part.is_empty() {
                    self.gpu.write(&self.plan.request, at(first), bytemuck::cast_slice(part));
                }
            };
            write(0, &table[..1 + rows.len()]);
            write(1 + max, &segments);
            write(1 + 2 * max, &logit_rows);
            self.last_request = table;
        }
        shape
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.gpu.release(&self.plan.buffers());
    }
}

/// What a step runs.
fn runs<'a>(
    step: &Step,
    shape: StepShape,
    options: &PlanOptions,
    programs: &'a [Programs; 4],
    sampling: &'a Program,
) -> Vec<Run<'a>> {
    let mut all = vec![&pick(shape.rows, shape.segments, options, programs).body];
    if shape.logit_rows > 0 {
        all.push(&pick(shape.logit_rows, shape.logit_rows, options, programs).head);
    }
    if step.rows.iter().any(|r| r.sample) {
        all.push(sampling);
    }
    all.into_iter().map(|program| (program, 0..program.len())).collect()
}

/// The one of the widths single, narrow and wide for so many rows.
fn pick<'a, T>(rows: u32, segments: u32, options: &PlanOptions, [single, narrow, batch, wide]: &'a [T; 4]) -> &'a T {
    match rows {
        0..=1 => single,
        _ if rows <= options.narrow_rows => narrow,
        _ if segments == rows => batch,
        _ => wide,
    }
}

/// Brings a plan's tables and the checkpoint's weights to the GPU.
async fn upload(gpu: &Gpu, checkpoint: &Checkpoint<'_>, plan: &Plan, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    for (buffer, table) in &plan.tables.0 {
        gpu.write(buffer, 0, bytemuck::cast_slice(table));
    }
    let total = plan.tensors.buffers().iter().map(Buffer::size).sum();
    let mut upload = Upload { gpu, queued: 0, done: 0, total, progress };
    for load in &plan.tensors.loads {
        match load {
            Load::Matrix { matrix, parts } => {
                for (name, rows, first) in parts {
                    let mut sink = Into { upload: &mut upload, matrix, first: *first };
                    checkpoint.matrix(name, *rows, matrix.k(), matrix.format(), &mut sink).await?;
                }
            }
            Load::Vectors { buffer, names, shape, stride } => {
                let count: usize = shape.iter().product();
                let mut values = vec![0f32; count * stride];
                for (j, name) in names.iter().enumerate() {
                    for (i, v) in checkpoint.vector(name, shape).await?.into_iter().enumerate() {
                        values[i * stride + j] = v;
                    }
                }
                upload.write(buffer, 0, bytemuck::cast_slice(&values)).await?;
            }
        }
    }
    gpu.flush().await?;
    progress(total, total);
    Ok(())
}

/// Writes to the GPU and keeps the queue short.
struct Upload<'a> {
    gpu: &'a Gpu,
    queued: u64,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Upload<'_> {
    async fn write(&mut self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.gpu.write(buffer, offset, bytes);
        self.queued += bytes.len() as u64;
        self.done += bytes.len() as u64;
        if self.queued >= MOST_QUEUED {
            self.gpu.flush().await?;
            self.queued = 0;
            (self.progress)(self.done.min(self.total), self.total);
        }
        Ok(())
    }
}

/// Where a tensor's rows go in a matrix.
struct Into<'a, 'b> {
    upload: &'a mut Upload<'b>,
    matrix: &'a Matrix,
    first: usize,
}

impl MatrixSink for Into<'_, '_> {
    fn write<'a>(&'a mut self, chunk: MatrixChunk<'a>) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            let row = Matrix::row_bytes(self.matrix.format(), self.matrix.k()) as usize;
            let first = self.first + chunk.first_row;
            let mut from = 0;
            for (buffer, offset, rows) in self.matrix.places(first, chunk.rows) {
                self.upload.write(buffer, offset, &chunk.words[from * row..(from + rows) * row]).await?;
                from += rows;
            }
            if let Some(scales) = self.matrix.scales() {
                let row = Matrix::scale_bytes(self.matrix.format(), self.matrix.k());
                let offset = first as u64 * row;
                if !offset.is_multiple_of(4) || !chunk.scales.len().is_multiple_of(4) {
                    return Err(Error::Gpu {
                        what: self.matrix.label().into(),
                        reason: format!("scales at byte {offset} are not in whole words"),
                    });
                }
                self.upload.write(scales, offset, chunk.scales).await?;
            }
            Ok(())
        }
        .boxed_local()
    }
}
