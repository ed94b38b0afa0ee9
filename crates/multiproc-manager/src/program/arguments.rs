//! The arguments of the program.

use std::ffi::OsString;

use lexopt::Parser;
use lexopt::prelude::{Long, Short, Value};
use multiproc_pipe::Address;

pub(super) const USAGE: &str = "\
PROGRAM: named queues and locks for programs that are started separately

usage:
  PROGRAM serve ADDRESS [--allow-user UID]... [--max-clients N] [--max-objects N]
  PROGRAM list ADDRESS [--json]
  PROGRAM watch ADDRESS [--json]

  serve  run a manager until it is interrupted (SIGINT, SIGTERM) or shut down
  list   print the objects of a manager
  watch  print them every second, with items per second, until interrupted

ADDRESS is a path, or an abstract name: @NAME. Only this user can connect, unless others are allowed.

options:
  --allow-user UID  also accept clients of this user
  --max-clients N   maximum number of connected clients (default: 4096)
  --max-objects N   maximum number of objects (default: 1024)
  --json            print one JSON object per line instead of a table
";

pub(super) enum Command {
    Serve(Vec<Setting>),
    List { json: bool },
    Watch { json: bool },
}

/// A setting of a manager.
pub(super) enum Setting {
    User(u32),
    Clients(u32),
    Objects(usize),
}

/// Returns the command and the address, or `None` if the usage is to be printed.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Option<(Command, Address)>, String> {
    if arguments == ["help"] {
        return Ok(None);
    }
    let (mut json, mut settings, mut words) = (false, Vec::new(), Vec::new());
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long("json") => json = true,
            Long("allow-user") => {
                settings.push(Setting::User(number("--allow-user", &mut parser)?));
            }
            Long("max-clients") => {
                settings.push(Setting::Clients(number("--max-clients", &mut parser)?));
            }
            Long("max-objects") => {
                let objects = number("--max-objects", &mut parser)?;
                settings.push(Setting::Objects(objects as usize));
            }
            Long(option) => return Err(format!("there is no option --{option}")),
            Short(option) => return Err(format!("there is no option -{option}")),
            Value(word) => {
                words.push(word.into_string().map_err(|_| "the arguments are not UTF-8")?);
            }
        }
    }
    let [command, address] = &words[..] else {
        return Err(format!("expected a command and an address, got {} words", words.len()));
    };
    let command = match &**command {
        "serve" if json => return Err("serve has no option --json".to_owned()),
        "serve" => Command::Serve(settings),
        _ if !settings.is_empty() => return Err(format!("{command} has no option but --json")),
        "list" => Command::List { json },
        "watch" => Command::Watch { json },
        other => return Err(format!("there is no command {other:?}")),
    };
    Ok(Some((command, Address::from(&**address))))
}

fn number(option: &str, parser: &mut Parser) -> Result<u32, String> {
    let text = parser.value().map_err(|_| format!("{option} needs a number"))?;
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{option} needs a number, got {text:?}"))
}
