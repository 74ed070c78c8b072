//! Where a chat's messages come from: a line editor at a terminal, else the lines of stdin.

use std::io::{BufRead, IsTerminal, StdinLock, stdin};
use std::path::PathBuf;

use anyhow::Context as _;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::command::{Command, NAMES};
use crate::messages;
use crate::terminal::Terminal;

/// What the person did.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Message(String),
    Command(Command),
    /// A command that is none, and why.
    Unknown(String),
    /// Ctrl-C while nothing was being answered.
    Interrupt,
    End,
}

pub enum Input {
    Editor { editor: Box<Editor<Lines, FileHistory>>, history: Option<PathBuf>, terminal: Terminal },
    Pipe { lines: StdinLock<'static>, number: usize },
}

impl Input {
    pub fn open(terminal: &Terminal) -> anyhow::Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self::Pipe { lines: stdin().lock(), number: 0 });
        }
        let config = Config::builder().completion_type(CompletionType::List).auto_add_history(false).build();
        let mut editor = Editor::with_config(config).context("cannot use the terminal")?;
        editor.set_helper(Some(Lines));
        let mut history = history_file();
        if let Some(path) = &history {
            let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let loaded = folder.map_err(ReadlineError::Io).and_then(|()| editor.load_history(path));
            match loaded {
                Err(ReadlineError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    terminal.warn(format_args!("{}: the history is not kept: {e}", path.display()));
                    history = None;
                }
                Ok(()) => {}
            }
        }
        Ok(Self::Editor { editor: Box::new(editor), history, terminal: *terminal })
    }

    /// Whether a person sits at the other end.
    pub fn is_interactive(&self) -> bool {
        matches!(self, Self::Editor { .. })
    }

    /// Waits for the next entry. Blank ones are passed over.
    pub fn next(&mut self) -> anyhow::Result<Entry> {
        loop {
            let entry = match self {
                Self::Editor { editor, history, terminal } => match editor.readline(&terminal.prompt()) {
                    Ok(text) => {
                        if !text.trim().is_empty() {
                            remember(editor, history, &text, terminal);
                        }
                        typed(&text)
                    }
                    Err(ReadlineError::Interrupted) => Entry::Interrupt,
                    Err(ReadlineError::Eof) => Entry::End,
                    Err(e) => return Err(e).context("cannot read from the terminal"),
                },
                Self::Pipe { lines, number } => {
                    let mut line = Vec::new();
                    *number += 1;
                    if lines.read_until(b'\n', &mut line).context("stdin")? == 0 {
                        Entry::End
                    } else {
                        piped(messages::utf8(line, &format!("stdin, line {number}"))?)
                    }
                }
            };
            if !matches!(&entry, Entry::Message(text) if text.trim().is_empty()) {
                return Ok(entry);
            }
        }
    }
}

/// Adds to the history and its file at once: a chat may end at any time.
fn remember(editor: &mut Editor<Lines, FileHistory>, history: &mut Option<PathBuf>, text: &str, terminal: &Terminal) {
    let Some(path) = history else { return };
    let added = editor.add_history_entry(text).and_then(|_| editor.append_history(path));
    if let Err(e) = added {
        terminal.warn(format_args!("{}: the history is no longer kept: {e}", path.display()));
        *history = None;
    }
}

/// An entry of the line editor.
fn typed(text: &str) -> Entry {
    match Command::parse(text) {
        Ok(Some(command)) => Entry::Command(command),
        Ok(None) => Entry::Message(joined(text)),
        Err(problem) => Entry::Unknown(problem),
    }
}

/// A line of a pipe: a message, unless it is exactly a command.
fn piped(mut line: String) -> Entry {
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    match Command::parse(&line) {
        Ok(Some(command)) => Entry::Command(command),
        Ok(None) | Err(_) => Entry::Message(line),
    }
}

const FENCE: &str = "\"\"\"";

/// The message that the lines of one entry are, without what held them together.
fn joined(text: &str) -> String {
    let trimmed = text.trim();
    match trimmed.strip_prefix(FENCE).and_then(|rest| rest.strip_suffix(FENCE)) {
        Some(inside) => inside.trim_matches('\n').to_owned(),
        None => text.replace("\\\n", "\n"),
    }
}

/// Whether Enter asks for another line.
fn goes_on(text: &str) -> bool {
    let trimmed = text.trim();
    match trimmed.strip_prefix(FENCE) {
        Some(rest) => !rest.ends_with(FENCE),
        None => text.ends_with('\\'),
    }
}

/// The history file, in the folder where the system keeps a program's data; none where there is no such folder.
fn history_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = if cfg!(windows) {
        variable("APPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library").join("Application Support"))
    } else {
        variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local").join("share")))
    };
    folder.map(|folder| folder.join("zebra").join("history.txt"))
}

/// Multi-line entries and completed command names.
pub struct Lines;

impl Validator for Lines {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(if goes_on(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Completer for Lines {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).unwrap_or_default();
        let names = NAMES.iter().filter(|name| !typed.is_empty() && name.starts_with(typed));
        Ok((0, names.map(|name| (*name).to_owned()).collect()))
    }
}

impl Hinter for Lines {
    type Hint = String;
}

impl Highlighter for Lines {}

impl Helper for Lines {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_several_lines_are_joined() {
        for (text, more) in
            [("a\\", true), ("a", false), ("\"\"\"a", true), ("\"\"\"", true), ("\"\"\"a\nb\"\"\"", false)]
        {
            assert_eq!(goes_on(text), more, "{text}");
        }
        assert_eq!(joined("one\\\ntwo"), "one\ntwo");
        assert_eq!(joined("\"\"\"\none\n  two\n\"\"\""), "one\n  two");
        assert_eq!(joined(" /usr "), " /usr ");
    }

    #[test]
    fn a_pipe_sends_what_only_looks_like_a_command() {
        assert_eq!(piped("/usr is what?\r\n".into()), Entry::Message("/usr is what?".into()));
        assert_eq!(piped("/undo\n".into()), Entry::Command(Command::Undo));
        assert_eq!(piped("ends with \\\n".into()), Entry::Message("ends with \\".into()));
        assert!(matches!(typed("/usr is what?"), Entry::Unknown(_)));
    }
}
