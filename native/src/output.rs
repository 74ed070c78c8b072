//! What goes to stdout: streamed text, and with `--json` one object on one line.

use std::io::{self, Write, stdout};

use serde::Serialize;

/// Writes text as it comes, at once.
pub fn text(text: &str) -> io::Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes one JSON object on one line.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    Ok(text(&line)?)
}

/// Whether the reader of stdout went away (`zebra … | head -1`), which is no failure of ours.
pub fn reader_left(error: &anyhow::Error) -> bool {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}
