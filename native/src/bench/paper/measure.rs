//! One row on a loaded model.

use std::time::Instant;

use anyhow::Result;
use pollster::block_on;
use zebra_runtime::engine::{Engine, steps_in_submit};
use zebra_runtime::model::Row as StepRow;

use super::rows::{Key, Measured, Mode};
use crate::bench::{Bench, WARM_UP};

/// Tokens whose rows fill a context that nobody reads.
const FILLING: usize = 1024;

/// Measures a row. `depth` tokens are in the context when decoding begins.
pub fn measure(engine: &mut Engine, kernels: &str, key: &Key, depth: usize) -> Result<Measured> {
    let vocab = engine.config().vocab_size as u32;
    let mut bench = Bench { engine, vocab };
    let (batch, generate) = (key.batch as usize, key.generate as usize);
    let prompt_seconds = match key.mode {
        Mode::Read => {
            // Warms up.
            bench.read(0, 0, depth.min(bench.engine.model().plan().options.max_rows as usize), false)?;
            Some(read_all(&mut bench, depth, batch)?)
        }
        Mode::Shared => fill(&mut bench, depth, depth, batch).map(|()| None)?,
        Mode::Random => fill(&mut bench, depth.min(FILLING), depth, batch).map(|()| None)?,
    };
    let warm_up = generate.min(WARM_UP);
    bench.decode(depth, batch, warm_up, 1)?;
    let steps = steps_in_submit(1e3 * bench.decode(depth, batch, warm_up, 1)? / warm_up as f64);
    let decode_seconds = bench.decode(depth, batch, generate, steps)?;
    let tokens = (batch * generate) as f64;
    Ok(Measured {
        kernels: kernels.into(),
        depth: depth as u32,
        prompt_seconds,
        decode_seconds,
        decode_tokens_per_second: tokens / decode_seconds,
        end_to_end_tokens_per_second: prompt_seconds.map(|prompt| tokens / (prompt + decode_seconds)),
        allocator_bytes: bench.engine.model().gpu().held().map(|held| held.used),
    })
}

/// Seconds to read every sequence's prompt and know the first token of each: one prompt after the other, steps as full
/// as they can be.
fn read_all(bench: &mut Bench<'_>, depth: usize, batch: usize) -> Result<f64> {
    let mut rows: Vec<StepRow> = Vec::with_capacity(batch * depth);
    for slot in 0..batch {
        bench.engine.reset(slot);
        bench.sampling(slot, depth - 1)?;
        rows.extend(bench.rows(slot, 0, depth));
        if let Some(last) = rows.last_mut() {
            (last.logits, last.sample) = (true, true);
        }
    }
    let start = Instant::now();
    bench.read_rows(&rows)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Fills every sequence to a depth with what one of them has read.
fn fill(bench: &mut Bench<'_>, read: usize, depth: usize, batch: usize) -> Result<()> {
    bench.engine.reset(0);
    bench.read(0, 0, read, false)?;
    bench.engine.assume_read(0, (0..read).map(|p| bench.id(p)).collect());
    let snapshot = block_on(bench.engine.snapshot(0))?;
    // The first too: it lets go of the snapshot's memory by it, and its rows may be fewer.
    for slot in 0..batch {
        bench.engine.fill(slot, &snapshot, depth)?;
    }
    Ok(block_on(bench.engine.model().gpu().flush())?)
}
