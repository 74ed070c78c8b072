//! `zebra generate`: one prompt, one answer.

use std::ffi::OsStr;
use std::io::{IsTerminal, Read, stdin};

use anyhow::{Context, bail};
use clap::CommandFactory;
use clap::error::ErrorKind;
use serde::Serialize;
use zebra_runtime::engine::Engine;
use zebra_runtime::text::Message;

use crate::answer::{self, Usage};
use crate::args::{Cli, GenerateArgs};
use crate::load::Loaded;
use crate::terminal::Terminal;
use crate::{load, messages, output};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    text: &'a str,
    /// The generated ids, the stop id included.
    ids: &'a [u32],
    prompt_ids: &'a [u32],
    finish_reason: &'a str,
    seed: u64,
    usage: Usage,
    timings: Timings,
}

#[derive(Serialize)]
struct Timings {
    load_seconds: f64,
    /// From the request to the first token.
    prompt_seconds: f64,
    prompt_tokens_per_second: f64,
    /// From the first token to the last.
    decode_seconds: f64,
    decode_tokens_per_second: f64,
    total_seconds: f64,
}

enum Prompt {
    Chat(Vec<Message>),
    /// One message; of a base model, which has no chat template, text to be gone on with.
    Message(String),
    Raw(String),
}

impl Prompt {
    fn ids(&self, engine: &Engine) -> anyhow::Result<Vec<u32>> {
        Ok(match self {
            Prompt::Chat(messages) => engine.encode_chat(messages)?,
            Prompt::Message(text) if engine.template().is_some() => {
                engine.encode_chat(&[Message::new("user", text)])?
            }
            Prompt::Message(text) | Prompt::Raw(text) => engine.encode(text)?,
        })
    }
}

pub fn run(args: &GenerateArgs, adapter: Option<&str>) -> anyhow::Result<()> {
    let terminal = Terminal::new(args.json);
    answer::check(&args.sampling)?;
    let prompt = prompt(args)?;
    let seed = args.sampling.seed.unwrap_or_else(answer::random_seed);
    let Loaded { mut engine, seconds: load_seconds, .. } = load::engine(&args.model, adapter, 1, &terminal)?;
    let options = answer::options(&args.sampling, engine.defaults(), seed);
    if matches!(prompt, Prompt::Message(_)) && engine.template().is_none() {
        terminal.note(load::BASE_MODEL);
    }
    let ids = prompt.ids(&engine)?;
    let json = args.json;
    let mut show = |piece: &str| if json { Ok(()) } else { output::text(piece) };
    let answer = answer::stream(&mut engine, &ids, &options, &|| false, &mut show)?;
    if json {
        return output::json(&Report {
            text: &answer.done.text,
            ids: &answer.done.ids,
            prompt_ids: &ids,
            finish_reason: answer.done.finish_reason.name(),
            seed,
            usage: answer.usage(),
            timings: Timings {
                load_seconds,
                prompt_seconds: answer.prompt_seconds,
                prompt_tokens_per_second: answer.prompt_speed(),
                decode_seconds: answer.decode_seconds,
                decode_tokens_per_second: answer.decode_speed(),
                total_seconds: load_seconds + answer.prompt_seconds + answer.decode_seconds,
            },
        });
    }
    output::text("\n")?;
    terminal.note(answer.summary(seed));
    Ok(())
}

/// `--prompt`, `--messages` or stdin. Looked at before a model is loaded.
fn prompt(args: &GenerateArgs) -> anyhow::Result<Prompt> {
    if let Some(path) = &args.messages {
        return Ok(Prompt::Chat(messages::read(path)?));
    }
    let (text, source) = match &args.prompt {
        Some(text) => (argument(text, "--prompt")?, "--prompt"),
        None if stdin().is_terminal() => {
            let message = "give a prompt by --prompt TEXT or --messages FILE.json, or pipe one in";
            let mut command = Cli::command();
            let command = command.find_subcommand_mut("generate").context("the generate command is defined")?;
            command.error(ErrorKind::MissingRequiredArgument, message).exit()
        }
        None => (piped()?, "stdin"),
    };
    // A completion may go on from blanks; a message is trimmed by the templates.
    if if args.raw { text.is_empty() } else { text.trim().is_empty() } {
        bail!("{source}: expected a prompt, found no text");
    }
    Ok(if args.raw { Prompt::Raw(text) } else { Prompt::Message(text) })
}

/// All of stdin, without the end of its last line.
fn piped() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    stdin().lock().read_to_end(&mut bytes).context("stdin")?;
    let mut text = messages::utf8(bytes, "stdin")?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// An argument that must be text.
pub fn argument(value: &OsStr, name: &str) -> anyhow::Result<String> {
    let text = value.to_str().with_context(|| format!("{name}: expected UTF-8, found {value:?}"))?;
    Ok(text.to_owned())
}
