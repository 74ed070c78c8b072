//! What people see beside the output: progress bars, notes and warnings on stderr, colours where a terminal shows them.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::OnceLock;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How to talk to the person (or the program) at the other end. Output itself goes to stdout, see [`crate::output`].
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// Show progress and notes: not with `--json`, where only warnings and errors are written.
    talkative: bool,
    bars: bool,
    colours: bool,
}

impl Terminal {
    /// `json`: stdout is read by a program.
    pub fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        let terminal = stderr().is_terminal();
        Self { talkative: !json, bars: terminal && !json, colours: terminal && stdout().is_terminal() && !plain }
    }

    /// A line about what is going on.
    pub fn note(&self, text: impl Display) {
        if self.talkative {
            say(self.dim(text));
        }
    }

    /// A line about what the person should know even in a script.
    pub fn warn(&self, text: impl Display) {
        say(format_args!("{} {text}", self.paint("33", "warning:")));
    }

    /// A failure and the failures that led to it, outermost first.
    pub fn error(&self, error: &anyhow::Error) {
        say(format_args!("{} {error:#}", self.paint("31", "error:")));
    }

    /// Progress in bytes. Without a terminal it is one line when it starts.
    pub fn bytes(&self, label: &str) -> Progress {
        self.bar(label, "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {eta}", None)
    }

    /// Progress through `total` things.
    pub fn count(&self, label: &str, total: usize) -> Progress {
        self.bar(label, "{msg} {bar:30} {pos}/{len} {eta}", Some(total as u64))
    }

    fn bar(&self, label: &str, template: &str, total: Option<u64>) -> Progress {
        let target = if self.bars {
            ProgressDrawTarget::stderr()
        } else {
            self.note(format_args!("{label} …"));
            ProgressDrawTarget::hidden()
        };
        // The templates above are ours and valid; a plain bar would be one, too.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(total, target);
        Progress(bar.with_style(style).with_message(label.to_owned()))
    }

    /// Less important text.
    pub fn dim(&self, text: impl Display) -> String {
        self.paint("2", text)
    }

    /// The mark before what the person types, plain and painted.
    pub fn prompt(&self) -> (&'static str, String) {
        ("> ", self.paint("1;32", "> "))
    }

    fn paint(&self, code: &str, text: impl Display) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// A progress bar that goes away when it is dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// `done` of `total` bytes.
    pub fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// What is being done now.
    pub fn label(&self, text: String) {
        self.0.set_message(text);
    }

    /// One thing more is done.
    pub fn advance(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Writes a line to stderr. When even stderr is gone there is nobody left to tell.
fn say(text: impl Display) {
    drop(writeln!(stderr(), "{text}"));
}

/// Writes log messages to stderr: the runtime's warnings, or as much of every crate's as `ZEBRA_LOG=debug` asks for.
struct Logger {
    level: Option<log::LevelFilter>,
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        match self.level {
            Some(level) => metadata.level() <= level,
            None => metadata.level() <= log::Level::Warn && metadata.target().starts_with("zebra"),
        }
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            say(format_args!("{}: {}", record.level().as_str().to_lowercase(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// Shows what the runtime logs. To be called once.
pub fn log_to_stderr() {
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let level = std::env::var("ZEBRA_LOG").ok().and_then(|level| level.parse().ok());
    log::set_max_level(level.unwrap_or(log::LevelFilter::Warn));
    log::set_logger(LOGGER.get_or_init(|| Logger { level })).expect("the program sets its logger once");
}
