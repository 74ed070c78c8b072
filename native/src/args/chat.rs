//! `zebra chat`.

use std::ffi::OsString;

use clap::Args;

use super::{ModelArgs, SamplingArgs};

/// Chat in the terminal.
///
/// Lines that are piped in are one message each; their answers are printed, and the end of the input ends the chat.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zebra chat
  zebra chat --model amd/Zebra-Llama-1B-4MLA-12Mamba-DPO --format q4
  zebra chat --system \"Answer in one sentence.\" --temperature 0
  echo \"What is a zebra?\" | zebra chat

In the chat, /help lists the commands. Ctrl-C stops an answer, a second one leaves.")]
pub struct ChatArgs {
    /// A system message, before the first
    #[arg(long, value_name = "TEXT")]
    pub system: Option<OsString>,

    #[command(flatten)]
    pub sampling: SamplingArgs,

    #[command(flatten)]
    pub model: ModelArgs,
}
