//! The arguments of the program.

use multiproc_pipe::Address;

pub(super) const USAGE: &str = "\
PROGRAM: named queues, locks and the rest, for programs that start apart

usage:
  PROGRAM serve ADDRESS [--allow-user UID]... [--max-clients N] [--max-objects N]
  PROGRAM list ADDRESS [--json]
  PROGRAM watch ADDRESS [--json]

  serve   is a manager, until it is interrupted (SIGINT, SIGTERM) or shut down
  list    shows once what a manager has
  watch   shows it every second, with items per second, until it is interrupted

ADDRESS is a path, or an abstract name: @NAME. It is open to this user alone, unless others are allowed.
--json prints one line for each object (watch: each second) instead of a table.
";

pub(super) enum Command {
    Serve(Vec<Setting>),
    List { json: bool },
    Watch { json: bool },
}

/// What can be set about a manager.
pub(super) enum Setting {
    User(u32),
    Clients(u32),
    Objects(usize),
}

pub(super) fn parse(arguments: &[&str]) -> Result<(Command, Address), String> {
    let mut json = false;
    let mut settings = Vec::new();
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(&argument) = rest.next() {
        let mut number = |name: &str| {
            let text = rest.next().ok_or_else(|| format!("{name} needs a number"))?;
            text.parse::<u32>().map_err(|_| format!("{name} needs a number, got {text:?}"))
        };
        match argument {
            "--json" => json = true,
            "--allow-user" => settings.push(Setting::User(number(argument)?)),
            "--max-clients" => settings.push(Setting::Clients(number(argument)?)),
            "--max-objects" => settings.push(Setting::Objects(number(argument)? as usize)),
            option if option.starts_with('-') => {
                return Err(format!("there is no option {option}"));
            }
            word => words.push(word),
        }
    }
    let [command, address] = words[..] else {
        return Err(format!("expected a command and an address, got {} words", words.len()));
    };
    let command = match command {
        "serve" if json => return Err("serve has no option --json".to_owned()),
        "serve" => Command::Serve(settings),
        _ if !settings.is_empty() => return Err(format!("{command} has no option but --json")),
        "list" => Command::List { json },
        "watch" => Command::Watch { json },
        other => return Err(format!("there is no command {other:?}")),
    };
    Ok((command, Address::from(address)))
}
