//! A manager as a program of its own, and a look into one that runs.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{collections::HashMap, ffi::OsString};

use multiproc_pipe::{Address, wait};

use crate::{Manager, ManagerError, ObjectInfo};

const USAGE: &str = "\
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

/// The arguments are wrong.
const MISUSED: u8 = 2;

/// How often `watch` looks.
const INTERVAL: Duration = Duration::from_secs(1);

enum Command {
    Serve(Vec<Setting>),
    List { json: bool },
    Watch { json: bool },
}

/// What can be set about a manager.
enum Setting {
    User(u32),
    Clients(u32),
    Objects(usize),
}

/// Runs the program, which is called `name`, with these arguments.
pub fn run(name: &str, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let usage = USAGE.replace("PROGRAM", name);
    let misused = |what: &str| {
        eprint!("{name}: {what}\n\n{usage}");
        ExitCode::from(MISUSED)
    };
    let arguments: Result<Vec<String>, _> =
        arguments.into_iter().map(|arg| arg.into_string()).collect();
    let Ok(arguments) = arguments else { return misused("the arguments are not UTF-8") };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [] | ["help"] = arguments[..] {
        print!("{usage}");
        return if arguments.is_empty() { ExitCode::from(MISUSED) } else { ExitCode::SUCCESS };
    }
    if arguments.iter().any(|&arg| arg == "--help" || arg == "-h") {
        print!("{usage}");
        return ExitCode::SUCCESS;
    }
    let (command, address) = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(what) => return misused(&what),
    };
    let result = match command {
        Command::Serve(settings) => serve(&address, settings),
        Command::List { json } => list(&address, json),
        Command::Watch { json } => watch(&address, json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let text = match failure {
                Failure::Manager(error) => format!("{address}: {error}"),
                Failure::Output(error) => format!("cannot print: {error}"),
            };
            eprintln!("{name}: {text}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[&str]) -> Result<(Command, Address), String> {
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

enum Failure {
    Manager(ManagerError),
    Output(io::Error),
}

impl From<ManagerError> for Failure {
    fn from(error: ManagerError) -> Self {
        Self::Manager(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn serve(address: &Address, settings: Vec<Setting>) -> Result<(), Failure> {
    let builder = settings.into_iter().fold(Manager::builder(), |builder, setting| match setting {
        Setting::User(user) => builder.allow_user(user),
        Setting::Clients(clients) => builder.max_clients(clients),
        Setting::Objects(objects) => builder.max_objects(objects),
    });
    // Who started it waits for this line, perhaps. If nobody reads it, it serves all the same.
    let say = |address: &Address| _ = writeln!(io::stdout(), "listening at {address}");
    Ok(builder.address(address).serve(say)?)
}

fn list(address: &Address, json: bool) -> Result<(), Failure> {
    let manager = Manager::connect(address)?;
    let rows: Vec<Row> = manager.list()?.into_iter().map(Row::first).collect();
    let text = if json { as_json(&rows) } else { as_table(&rows, false) };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Prints a table each second: over the last one, if that is on a terminal.
fn watch(address: &Address, json: bool) -> Result<(), Failure> {
    let (interrupted, write) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    let manager = Manager::connect(address)?;
    let mut out = io::stdout();
    let is_live = out.is_terminal() && !json;
    let mut before: HashMap<String, (ObjectInfo, Instant)> = HashMap::new();
    loop {
        let now = Instant::now();
        let mut rows = Vec::new();
        let mut seen = HashMap::new();
        for info in manager.list()? {
            let last = before.remove(&info.name);
            seen.insert(info.name.clone(), (info.clone(), now));
            rows.push(Row::since(info, last.as_ref(), now));
        }
        before = seen;
        let text = match (json, is_live) {
            (true, _) => as_json(&rows),
            // Home, and clears to the end of the screen.
            (false, true) => format!("\x1b[H\x1b[2J{}", as_table(&rows, true)),
            (false, false) => as_table(&rows, true),
        };
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if !wait([&interrupted], Some(INTERVAL))?.is_empty() {
            return Ok(());
        }
    }
}

/// An object, and how fast it is.
struct Row {
    info: ObjectInfo,
    /// Items per second, put and got.
    rates: Option<(f64, f64)>,
}

impl Row {
    fn first(info: ObjectInfo) -> Self {
        Self { info, rates: None }
    }

    fn since(info: ObjectInfo, last: Option<&(ObjectInfo, Instant)>, now: Instant) -> Self {
        let rates = last.filter(|_| info.item_type.is_some()).map(|(last, then)| {
            let seconds = now.duration_since(*then).as_secs_f64().max(1e-3);
            // Less than before: the name was removed, and made anew.
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            (rate(info.put, last.put), rate(info.got, last.got))
        });
        Self { info, rates }
    }

    fn waits(&self) -> String {
        let ObjectInfo { waiting, waiting_to_put, holder, .. } = self.info;
        let mut words = Vec::new();
        if waiting {
            words.push(if self.info.item_type.is_some() { "get" } else { "yes" }.to_owned());
        }
        if waiting_to_put {
            words.push("put".to_owned());
        }
        if let Some(pid) = holder {
            words.push(format!("for {pid}"));
        }
        if words.is_empty() { "-".to_owned() } else { words.join(" ") }
    }
}

fn as_table(rows: &[Row], with_rates: bool) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut header = vec!["NAME", "KIND", "LENGTH", "CAPACITY"];
    header.extend(if with_rates { ["IN/S", "OUT/S"] } else { ["PUT", "GOT"] });
    header.extend(["MEMBERS", "WAITS", "ITEMS"]);
    let mut table: Vec<Vec<String>> = vec![header.into_iter().map(str::to_owned).collect()];
    for row in rows {
        let info = &row.info;
        let is_queue = info.item_type.is_some();
        let (put, got) = match (with_rates, row.rates) {
            (true, rates) => (
                rates.map(|(put, _)| format!("{put:.0}")),
                rates.map(|(_, got)| format!("{got:.0}")),
            ),
            _ => (is_queue.then(|| info.put.to_string()), is_queue.then(|| info.got.to_string())),
        };
        table.push(vec![
            info.name.clone(),
            info.kind.to_string(),
            info.length.to_string(),
            or_dash(info.capacity.map(|capacity| capacity.to_string())),
            or_dash(put),
            or_dash(got),
            info.members.to_string(),
            row.waits(),
            or_dash(info.item_type.clone()),
        ]);
    }
    let columns = table[0].len();
    let width =
        |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &table {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn as_json(rows: &[Row]) -> String {
    fn or_null<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "null".to_owned(), |value| value.to_string())
    }
    let mut text = String::new();
    for Row { info, rates } in rows {
        let rate = |rate: Option<f64>| or_null(rate.map(|rate| format!("{rate:.1}")));
        _ = writeln!(
            text,
            "{{\"name\":{},\"kind\":{},\"item_type\":{},\"capacity\":{},\"length\":{},\
             \"members\":{},\"holder\":{},\"waiting\":{},\"waiting_to_put\":{},\"put\":{},\
             \"got\":{},\"put_per_second\":{},\"got_per_second\":{}}}",
            quoted(&info.name),
            quoted(&info.kind.to_string()),
            or_null(info.item_type.as_deref().map(quoted)),
            or_null(info.capacity),
            info.length,
            info.members,
            or_null(info.holder),
            info.waiting,
            info.waiting_to_put,
            info.put,
            info.got,
            rate(rates.map(|(put, _)| put)),
            rate(rates.map(|(_, got)| got)),
        );
    }
    text
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if char < ' ' => _ = write!(quoted, "\\u{:04x}", u32::from(char)),
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}
