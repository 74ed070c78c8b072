//! The commands of a chat.

use std::path::PathBuf;

/// A line that begins with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Help,
    Reset,
    Undo,
    Regenerate,
    Stats,
    Save(Option<PathBuf>),
    Load(PathBuf),
    Exit,
}

/// The names, for completion.
pub const NAMES: [&str; 8] = ["/exit", "/help", "/load ", "/regenerate", "/reset", "/save ", "/stats", "/undo"];

pub const HELP: &str = "\
/reset        start over (the system message stays)
/undo         take back the last message and its answer
/regenerate   answer the last message once more
/stats        tokens and speed of the last answer, room in the context
/save [FILE]  write the chat as JSON, also for `zebra generate --messages`
/load FILE    go on with a saved chat
/help         this list
/exit         leave; also Ctrl-D, or Ctrl-C twice
A line that ends with a backslash goes on in the next one; so does all between two \"\"\".
A message that begins with a slash is sent with a blank before it.
";

impl Command {
    /// The command that `line` is, `None` for a message, or what is wrong with it.
    pub fn parse(line: &str) -> Result<Option<Self>, String> {
        let Some(rest) = line.strip_prefix('/') else { return Ok(None) };
        let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let argument = argument.trim();
        let plain = match name {
            "help" | "?" => Self::Help,
            "reset" => Self::Reset,
            "undo" => Self::Undo,
            "regenerate" => Self::Regenerate,
            "stats" => Self::Stats,
            "exit" | "quit" => Self::Exit,
            "save" => return Ok(Some(Self::Save((!argument.is_empty()).then(|| argument.into())))),
            "load" if argument.is_empty() => return Err("/load: give a file name".into()),
            "load" => return Ok(Some(Self::Load(argument.into()))),
            _ => {
                return Err(format!(
                    "there is no command /{name}; /help lists them (a blank before the slash sends it as a message)"
                ));
            }
        };
        if argument.is_empty() { Ok(Some(plain)) } else { Err(format!("/{name}: takes nothing after it")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_messages() {
        assert_eq!(Command::parse("What is a zebra?"), Ok(None));
        assert_eq!(Command::parse(" /usr is a folder"), Ok(None));
        assert_eq!(Command::parse("/undo "), Ok(Some(Command::Undo)));
        assert_eq!(Command::parse("/save"), Ok(Some(Command::Save(None))));
        assert_eq!(Command::parse("/save my chat.json"), Ok(Some(Command::Save(Some("my chat.json".into())))));
        assert_eq!(Command::parse("/load a.json"), Ok(Some(Command::Load("a.json".into()))));
        for line in ["/load", "/usr is a folder", "/undo it", "/"] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_command_is_explained_and_completed() {
        for name in NAMES {
            assert!(HELP.contains(name.trim()), "{name}");
            assert!(Command::parse(&format!("{name}file")).is_ok() || Command::parse(name).is_ok(), "{name}");
        }
    }
}
