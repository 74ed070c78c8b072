//! The rows as a table of Markdown, and the ratios that the paper is about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Result, Write};

use super::models::{COMPARISONS, Comparison};
use super::rows::{Key, Largest, Limit, Mode, Outcome, Row};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

/// What the paper says of Zebra-8B with a batch of 48, decoding on random caches.
const OVER_MAMBA_IN_LLAMA: &str = "2.6–3.8 up to 32,768 (1.4–3.3 in its later version)";
const OVER_LLAMA: &str = "3.9 at 16,384";

pub fn markdown(rows: &[&Row]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, rows);
    out
}

fn write(out: &mut String, rows: &[&Row]) -> Result {
    let Some(first) = rows.first() else { return writeln!(out, "No row was measured.") };
    let commits = distinct(rows.iter().map(|row| row.commit.as_str()));
    writeln!(
        out,
        "Random weights of each model's geometry, {}, cache {}, {} tokens generated, on {} ({}), commit {}\n",
        first.key.format,
        first.key.cache,
        first.key.generate,
        first.key.adapter,
        first.driver,
        commits.join(" and ")
    )?;
    writeln!(
        out,
        "| model | parameters | batch | prompt | context | decode, tokens/s | end to end, tokens/s | GPU memory, GiB | \
         allocator, GiB | a sequence's cache, MiB | cache bytes a token | of Llama's | largest batch |"
    )?;
    writeln!(out, "|{}", "---|".repeat(13))?;
    for row in rows {
        let key = &row.key;
        let (speeds, allocator) = match &row.outcome {
            Outcome::Measured(m) => {
                let whole = m.end_to_end_tokens_per_second.map_or("–".into(), |v| format!("{v:.1}"));
                let allocator = m.allocator_bytes.map_or("not known".into(), |b| format!("{:.2}", b as f64 / GIB));
                (format!("{:.1} | {whole}", m.decode_tokens_per_second), allocator)
            }
            Outcome::DoesNotFit(refusal) => (format!("{refusal} | –"), "–".into()),
        };
        writeln!(
            out,
            "| {} | {:.2} B | {} | {} | {} | {speeds} | {:.2} | {allocator} | {:.1} | {} | {:.2}% | {} |",
            key.title(),
            row.parameters as f64 / 1e9,
            key.batch,
            key.prompt,
            key.mode.name(),
            row.gpu_bytes as f64 / GIB,
            row.sequence_bytes(u64::from(key.prompt)) as f64 / MIB,
            row.cache_bytes_per_token,
            row.percent_of_llama,
            row.largest_batch.map_or("not known".into(), largest),
        )?;
    }
    notes(out, rows)?;
    COMPARISONS.iter().try_for_each(|comparison| ratios(out, rows, comparison))
}

fn largest(largest: Largest) -> String {
    let by = match largest.by {
        Limit::Memory => "",
        Limit::Binding => " (one binding holds no more)",
        Limit::Slots => " (the engine's most)",
    };
    format!("{}{by}", largest.batch)
}

fn notes(out: &mut String, rows: &[&Row]) -> Result {
    let has = |mode: Mode| rows.iter().any(|row| row.key.mode == mode);
    writeln!(out)?;
    if has(Mode::Read) {
        writeln!(
            out,
            "- read: every sequence's prompt was really read, one after the other in steps as full as they can be, \
             and all of that time counts. End to end: the batch's generated tokens over the time of reading and decoding."
        )?;
    }
    if has(Mode::Shared) {
        writeln!(
            out,
            "- shared: one sequence read the prompt, the others got copies of its cache and state. There is no \
             figure for end to end: nobody waited for the other prompts."
        )?;
    }
    if has(Mode::Random) {
        writeln!(
            out,
            "- random: 1,024 tokens were read; their cached rows fill the context of every sequence, again and again. \
             Only decoding is measured."
        )?;
    }
    writeln!(
        out,
        "- GPU memory is what the row alone needs, by its plan; the allocator's is what was held while it was measured, \
         with room for the model's largest row that fits. A sequence's cache is that of its prompt, with its recurrent \
         states. \"Of Llama's\": values cached of a token, whatever their format."
    )?;
    let shorter =
        rows.iter().filter_map(|row| Some((&row.key, row.measured()?.depth))).filter(|(key, d)| *d < key.prompt);
    for (key, depth) in shorter {
        writeln!(out, "- {key}: began at {depth}, so that the answer ends where the model's positions do.")?;
    }
    Ok(())
}

/// Decode throughput of each Zebra over the two it is measured by, and what it caches over them.
fn ratios(out: &mut String, rows: &[&Row], comparison: &Comparison) -> Result {
    let of = |model: &str| rows.iter().filter(|row| row.key.model == model).copied().collect::<Vec<_>>();
    // A line for each pair, batch and kind of context, a cell for each prompt that both were asked for.
    let mut prompts: BTreeSet<u32> = BTreeSet::new();
    let mut lines: Vec<(String, &str, BTreeMap<u32, String>)> = Vec::new();
    for zebra in comparison.zebras {
        for (other, paper) in [(comparison.mamba_in_llama, OVER_MAMBA_IN_LLAMA), (comparison.llama, OVER_LLAMA)] {
            let theirs = of(other);
            for ours in of(zebra) {
                let same = |row: &&&Row| Key { model: ours.key.model.clone(), ..row.key.clone() } == ours.key;
                let Some(theirs) = theirs.iter().find(same) else { continue };
                let cell = match (ours.measured(), theirs.measured()) {
                    (Some(a), Some(b)) => format!("{:.2}", a.decode_tokens_per_second / b.decode_tokens_per_second),
                    (Some(_), None) => format!("{} does not fit", theirs.key.title()),
                    (None, _) => format!("{} does not fit", ours.key.title()),
                };
                let context = if ours.key.mode == Mode::Random { "random" } else { "read" };
                let name = format!("{} over {other} | {} | {context}", ours.key.title(), ours.key.batch);
                prompts.insert(ours.key.prompt);
                match lines.iter_mut().find(|line| line.0 == name) {
                    Some(line) => drop(line.2.insert(ours.key.prompt, cell)),
                    None => lines.push((name, paper, BTreeMap::from([(ours.key.prompt, cell)]))),
                }
            }
        }
    }
    if !lines.is_empty() {
        let columns: String = prompts.iter().map(|prompt| format!(" {prompt} |")).collect();
        writeln!(out, "\n| decode throughput, by prompt | batch | context |{columns} the paper's, 8B |")?;
        writeln!(out, "|{}", "---|".repeat(prompts.len() + 4))?;
    }
    for (name, paper, cells) in lines {
        let cell = |prompt: &u32| format!(" {} |", cells.get(prompt).map_or("–", String::as_str));
        writeln!(out, "| {name} |{} {paper} |", prompts.iter().map(cell).collect::<String>())?;
    }
    let (minitron, zebra) = (of(comparison.minitron), comparison.zebras.first().map_or_else(Vec::new, |name| of(name)));
    if let (Some(minitron), Some(zebra)) = (minitron.first(), zebra.first()) {
        let times = minitron.cache_bytes_per_token as f64 / zebra.cache_bytes_per_token as f64;
        let (a, b) = (minitron.key.title(), zebra.key.title());
        writeln!(out, "\nCache of a token: {a} {times:.1} times {b}'s (the paper: 12, 8B)")?;
    }
    Ok(())
}

/// Each once, in their order.
fn distinct<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}
