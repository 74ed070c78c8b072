//! `zebra chat`: a conversation in the terminal, or one message a line from a pipe.

mod command;
mod input;

use std::path::{Path, PathBuf};
use std::process::exit;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, bail};
use zebra_runtime::Error;
use zebra_runtime::engine::{Engine, FinishReason};
use zebra_runtime::text::Message;

use self::command::Command;
use self::input::{Entry, Input};
use crate::answer::{self, Answer};
use crate::args::{ChatArgs, SamplingArgs};
use crate::load::Loaded;
use crate::terminal::Terminal;
use crate::{generate, load, messages, output};

/// What Ctrl-C does: outside of an answer it ends the program, inside it stops the answer, and a second one while the
/// answer is still stopping ends the program. (While a line is edited, it is a key that [`Input`] reads.)
mod interrupt {
    pub const LEAVE: u8 = 0;
    pub const STOP: u8 = 1;
    pub const STOPPING: u8 = 2;
    /// The exit code that shells give a program ended by Ctrl-C.
    pub const EXIT_CODE: i32 = 130;
}

static ON_CTRL_C: AtomicU8 = AtomicU8::new(interrupt::LEAVE);

pub fn run(args: &ChatArgs, adapter: Option<&str>) -> anyhow::Result<()> {
    let terminal = Terminal::new(false);
    answer::check(&args.sampling)?;
    let system = args.system.as_deref().map(|text| generate::argument(text, "--system")).transpose()?;
    ctrlc::set_handler(|| {
        let stop = ON_CTRL_C.compare_exchange(interrupt::STOP, interrupt::STOPPING, Ordering::SeqCst, Ordering::SeqCst);
        if stop.is_err() {
            exit(interrupt::EXIT_CODE);
        }
    })
    .context("cannot handle Ctrl-C")?;
    let Loaded { engine, seconds, .. } = load::engine(&args.model, adapter, 1, &terminal)?;
    let mut input = Input::open(&terminal)?;
    if input.is_interactive() {
        terminal.note(format_args!("Loaded in {seconds:.1} s. /help lists the commands."));
    }
    if engine.template().is_none() {
        terminal.note(load::BASE_MODEL);
    }
    let system = system.map(|text| Message::new("system", text));
    let mut chat = Chat {
        engine,
        sampling: &args.sampling,
        messages: system.iter().cloned().collect(),
        system,
        last: None,
        attempt: 0,
        file: None,
        terminal,
    };
    chat.talk(&mut input)
}

struct Chat<'a> {
    engine: Engine,
    sampling: &'a SamplingArgs,
    /// The chat so far, the system message included. Answers keep the ids they were generated as.
    messages: Vec<Message>,
    /// What `/reset` goes back to.
    system: Option<Message>,
    last: Option<(Answer, u64)>,
    /// How often the present message was answered before: a regenerated answer has another seed.
    attempt: u64,
    /// The file this chat was saved to or loaded from, which `/save` may overwrite.
    file: Option<PathBuf>,
    terminal: Terminal,
}

impl Chat<'_> {
    fn talk(&mut self, input: &mut Input) -> anyhow::Result<()> {
        // Whether the last thing that happened was a Ctrl-C.
        let mut interrupted = false;
        loop {
            let result = match input.next()? {
                Entry::End => return Ok(()),
                Entry::Interrupt if interrupted => return Ok(()),
                Entry::Interrupt => {
                    self.terminal.note("Ctrl-C again, Ctrl-D or /exit leaves.");
                    interrupted = true;
                    continue;
                }
                Entry::Command(Command::Exit) => return Ok(()),
                Entry::Command(command) => self.obey(&command).map(|()| false),
                Entry::Unknown(problem) => Err(anyhow::anyhow!(problem)),
                Entry::Message(text) => {
                    self.messages.push(Message::new("user", text));
                    self.attempt = 0;
                    let result = self.answer();
                    if result.is_err() {
                        self.messages.pop();
                    }
                    result
                }
            };
            interrupted = match result {
                Ok(stopped) => stopped,
                // At a terminal the person decides what to do about it; a script must learn of it.
                Err(error) if input.is_interactive() && !is_final(&error) => {
                    self.terminal.error(&error);
                    false
                }
                Err(error) => return Err(error),
            };
        }
    }

    /// Answers the last message; true when Ctrl-C stopped it.
    fn answer(&mut self) -> anyhow::Result<bool> {
        let seed = self.sampling.seed.map_or_else(answer::random_seed, |seed| seed.wrapping_add(self.attempt));
        let stopped = || ON_CTRL_C.load(Ordering::SeqCst) == interrupt::STOPPING;
        let mut options = answer::options(self.sampling, self.engine.defaults(), seed);
        options.abort = Some(Rc::new(stopped));
        let ids = match self.engine.template() {
            Some(_) => self.engine.encode_chat(&self.messages)?,
            None => self.engine.encode(&plain(&self.messages))?,
        };
        ON_CTRL_C.store(interrupt::STOP, Ordering::SeqCst);
        let result = answer::stream(&mut self.engine, &ids, &options, &stopped, &mut output::text);
        ON_CTRL_C.store(interrupt::LEAVE, Ordering::SeqCst);
        output::text("\n")?;
        if result.as_ref().is_err_and(|error| matches!(error.downcast_ref(), Some(Error::Aborted))) {
            // Stopped while the message was read: as if it had not been sent.
            self.messages.pop();
            self.terminal.note("(stopped)");
            return Ok(true);
        }
        let answer = result?;

        let done = &answer.done;
        let ids = done.content_ids(&self.engine.defaults().stop_ids);
        self.messages.push(Message { ids: Some(ids), ..Message::new("assistant", done.text.clone()) });
        let stopped = done.finish_reason == FinishReason::Aborted;
        if stopped {
            self.terminal.note("(stopped)");
        } else if done.prompt_tokens + done.ids.len() >= self.engine.context() {
            self.terminal.note("(the context is full: /undo or /reset makes room, --context N gives more)");
        }
        self.last = Some((answer, seed));
        Ok(stopped)
    }

    fn obey(&mut self, command: &Command) -> anyhow::Result<()> {
        match command {
            Command::Help => output::text(command::HELP)?,
            Command::Reset => {
                self.messages = self.system.iter().cloned().collect();
                self.last = None;
                self.terminal.note("(the chat is empty)");
            }
            Command::Undo => {
                let Some(at) = self.messages.iter().rposition(|m| m.role == "user") else { bail!("nothing to undo") };
                let removed = self.messages.split_off(at);
                self.terminal.note(format_args!("(removed: {})", first_line(&removed[0].content)));
            }
            Command::Regenerate => self.regenerate()?,
            Command::Stats => output::text(&self.stats())?,
            Command::Save(path) => self.save(path.as_deref())?,
            Command::Load(path) => {
                self.messages = messages::read(path)?;
                self.file = Some(path.clone());
                self.terminal.note(format_args!("({} messages)", self.messages.len()));
            }
            Command::Exit => {}
        }
        Ok(())
    }

    /// Answers the last user message once more. A failure leaves the answer that was there.
    fn regenerate(&mut self) -> anyhow::Result<()> {
        let Some(at) = self.messages.iter().rposition(|m| m.role == "user") else { bail!("nothing to regenerate") };
        let before = self.messages.split_off(at + 1);
        self.attempt += 1;
        self.answer().map(drop).inspect_err(|_| self.messages.extend(before))
    }

    fn stats(&self) -> String {
        let context = self.engine.context();
        let Some((answer, seed)) = &self.last else {
            return format!("no answer yet; the context holds {context} tokens\n");
        };
        format!(
            "{}\nprompt read at {:.1} tokens/s; context {} of {context} tokens\n",
            answer.summary(*seed),
            answer.prompt_speed(),
            answer.usage().total_tokens,
        )
    }

    /// Writes the chat to a new file, or again to its own.
    fn save(&mut self, path: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = path.or(self.file.as_deref()) else { bail!("/save: give a file name") };
        if self.file.as_deref() != Some(path) && path.exists() {
            bail!("{}: is there already, and this chat is not from it", path.display());
        }
        messages::write(path, &self.messages)?;
        self.file = Some(path.to_owned());
        self.terminal.note(format_args!("(saved {} messages)", self.messages.len()));
        Ok(())
    }
}

/// A chat as a base model takes it: each message on a line of its own, and right behind it what the model went on with.
fn plain(messages: &[Message]) -> String {
    let mut text = String::new();
    for message in messages {
        if !text.is_empty() && message.role != "assistant" {
            text.push('\n');
        }
        text.push_str(&message.content);
    }
    text
}

/// Whether going on makes no sense: no GPU any more, or nobody who reads.
fn is_final(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::DeviceLost(_))) || error.downcast_ref::<std::io::Error>().is_some()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
