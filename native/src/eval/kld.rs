//! `zebra eval kld`: how far a model's predictions are from a reference's, over every position of some texts.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use pollster::block_on;
use zebra_runtime::engine::{CacheFormat, Engine, LoadOptions};
use zebra_runtime::model::{Row, Step, Token};
use zebra_runtime::text::{Message, encode_chat};

use crate::args::KldArgs;
use crate::load::{self, Loaded};
use crate::output;
use crate::terminal::Terminal;

/// Rows whose logits are read together.
const CHUNK: u32 = 64;

pub fn run(args: &KldArgs, adapter: Option<&str>) -> Result<()> {
    let terminal = Terminal::new(args.json);
    let options = LoadOptions {
        chunk_rows: Some(CHUNK),
        logit_rows: Some(CHUNK),
        snapshot_budget: 0,
        ..load::options(&args.model, 1)
    };
    // The cache is the model's own choice; the reference's loses nothing.
    let reference =
        LoadOptions { preset: Some(args.reference_format.into()), cache: CacheFormat::F32, ..options.clone() };
    let Loaded { mut engine, .. } = load::model(Some(&args.reference), adapter, &reference, &terminal)?;
    let texts = texts(args, &engine)?;
    let positions: usize = texts.iter().map(Vec::len).sum();
    let vocab = engine.config().vocab_size;

    // The reference's predictions wait in a file: of a large vocabulary they are gigabytes.
    let mut store = tempfile::tempfile().context("cannot make a temporary file")?;
    {
        let mut writer = BufWriter::new(&mut store);
        let bar = terminal.count("Reference", positions);
        predict(&mut engine, &texts, |_, logits| {
            bar.advance();
            writer.write_all(bytemuck::cast_slice(logits)).context("cannot keep the reference's predictions")
        })?;
        writer.flush().context("cannot keep the reference's predictions")?;
    }
    drop(engine);
    store.rewind()?;

    let Loaded { mut engine, .. } = load::model(args.model.model.as_deref(), adapter, &options, &terminal)?;
    if engine.config().vocab_size != vocab {
        bail!("the model has {} tokens, the reference {vocab}", engine.config().vocab_size);
    }
    let mut sums = Sums::default();
    let mut reader = BufReader::new(store);
    let mut expected = vec![0f32; vocab];
    let bar = terminal.count("Model", positions);
    predict(&mut engine, &texts, |next, logits| {
        read_row(&mut reader, &mut expected)?;
        sums.add(&expected, logits, next);
        bar.advance();
        Ok(())
    })?;
    drop(bar);
    let report = sums.report();
    if args.json {
        return output::json(&report);
    }
    Ok(output::text(&format!(
        "KL divergence {:.6} over {} positions\nsame top token {:.4}\nperplexity {:.4}, of the reference {:.4}\n",
        report.kld, report.positions, report.top1_agreement, report.perplexity, report.reference_perplexity,
    ))?)
}

fn read_row(reader: &mut BufReader<File>, row: &mut [f32]) -> Result<()> {
    reader.read_exact(bytemuck::cast_slice_mut(row)).context("cannot read the reference's predictions")
}

/// The ids to compare on.
fn texts(args: &KldArgs, engine: &Engine) -> Result<Vec<Vec<u32>>> {
    let mut texts = Vec::new();
    if let Some(path) = &args.chats {
        let template = engine.template().context("the reference has no chat template; use --text")?;
        for (line, value) in super::json_lines(path)?.into_iter().take(args.limit.unwrap_or(usize::MAX)) {
            let messages = chat(&value, path, line)?;
            texts.push(encode_chat(engine.tokenizer(), template, &messages, false)?);
        }
    }
    if let Some(path) = &args.text {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut ids = engine.tokenizer().encode(&text, true)?;
        ids.truncate(args.limit.unwrap_or(usize::MAX));
        texts.extend(ids.chunks(engine.context()).map(<[u32]>::to_vec));
    }
    if texts.iter().all(Vec::is_empty) {
        bail!("there is no text to compare on");
    }
    if let Some(long) = texts.iter().find(|t| t.len() > engine.context()) {
        bail!("a chat of {} tokens: the context is {} (--context)", long.len(), engine.context());
    }
    Ok(texts)
}

/// `{"messages": [...]}` or `{"question", "answer"}`.
fn chat(value: &serde_json::Value, path: &Path, line: usize) -> Result<Vec<Message>> {
    if let Some(messages) = value["messages"].as_array() {
        return messages
            .iter()
            .map(|m| Ok(Message::new(super::text(m, "role", path, line)?, super::text(m, "content", path, line)?)))
            .collect();
    }
    Ok(vec![
        Message::new("user", super::text(value, "question", path, line)?),
        Message::new("assistant", super::text(value, "answer", path, line)?),
    ])
}

/// Runs the texts and hands out each position's logits with the token that follows it, if one does.
fn predict(
    engine: &mut Engine,
    texts: &[Vec<u32>],
    mut take: impl FnMut(Option<u32>, &[f32]) -> Result<()>,
) -> Result<()> {
    let vocab = engine.config().vocab_size;
    for ids in texts {
        engine.reset(0);
        for (i, chunk) in ids.chunks(CHUNK as usize).enumerate() {
            let first = i * CHUNK as usize;
            let row = |(j, &id): (usize, &u32)| Row {
                slot: 0,
                token: Token::Id(id),
                position: (first + j) as u32,
                logits: true,
                sample: false,
            };
            let rows = chunk.iter().enumerate().map(row).collect();
            for (j, logits) in block_on(engine.model_mut().logits(&Step { rows }, vocab))?.iter().enumerate() {
                take(ids.get(first + j + 1).copied(), logits)?;
            }
        }
    }
    Ok(())
}

/// Sums over positions.
#[derive(Default)]
struct Sums {
    positions: usize,
    kld: f64,
    same: usize,
    predicted: usize,
    nll: f64,
    reference_nll: f64,
}

/// What is printed.
#[derive(serde::Serialize)]
struct Report {
    kld: f64,
    top1_agreement: f64,
    perplexity: f64,
    reference_perplexity: f64,
    positions: usize,
}

impl Sums {
    fn add(&mut self, reference: &[f32], model: &[f32], next: Option<u32>) {
        let (p, q) = (log_softmax(reference), log_softmax(model));
        self.positions += 1;
        self.kld += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.same += usize::from(best(&p) == best(&q));
        if let Some(next) = next {
            self.predicted += 1;
            self.nll -= q[next as usize];
            self.reference_nll -= p[next as usize];
        }
    }

    fn report(&self) -> Report {
        let (n, predicted) = (self.positions as f64, self.predicted.max(1) as f64);
        Report {
            kld: self.kld / n,
            top1_agreement: self.same as f64 / n,
            perplexity: (self.nll / predicted).exp(),
            reference_perplexity: (self.reference_nll / predicted).exp(),
            positions: self.positions,
        }
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&v| f64::from(v - most).exp()).sum();
    logits.iter().map(|&v| f64::from(v - most) - sum.ln()).collect()
}

fn best(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |b, (i, v)| if *v > values[b] { i } else { b })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_predictions_have_no_divergence_and_others_do() {
        let mut sums = Sums::default();
        sums.add(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], Some(2));
        assert!(sums.report().kld.abs() < 1e-12);
        // By hand: p = (3/4, 1/4), q = (1/4, 3/4), sum p ln(p/q) = 1/2 ln 3.
        let mut sums = Sums::default();
        sums.add(&[3f32.ln(), 0.0], &[0.0, 3f32.ln()], Some(0));
        let report = sums.report();
        assert!((report.kld - 0.5 * 3f64.ln()).abs() < 1e-6, "{}", report.kld);
        assert_eq!(report.top1_agreement, 0.0);
        assert!((report.perplexity - 4.0).abs() < 1e-5 && (report.reference_perplexity - 4.0 / 3.0).abs() < 1e-5);
    }
}
