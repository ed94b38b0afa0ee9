//! The program: runs a manager, or prints the objects of one.

mod arguments;
mod report;

use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{collections::HashMap, ffi::OsString};

use multiproc_pipe::{Address, wait};

use self::arguments::{Command, Setting, USAGE};
use self::report::{Row, as_json, as_table};
use crate::{Diagnosis, Manager, ManagerError, ObjectInfo};

/// The exit code after wrong arguments.
const MISUSED: u8 = 2;

/// How often `watch` prints.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs the program under the name `name`.
pub fn run(name: &str, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let usage = USAGE.replace("PROGRAM", name);
    let misused = |what: &str| {
        eprint!("{name}: {what}\n\n{usage}");
        ExitCode::from(MISUSED)
    };
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.is_empty() {
        print!("{usage}");
        return ExitCode::from(MISUSED);
    }
    let (command, address) = match arguments::parse(arguments) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => {
            print!("{usage}");
            return ExitCode::SUCCESS;
        }
        Err(what) => return misused(&what),
    };
    let result = match command {
        Command::Serve(settings) => serve(&address, settings),
        Command::List { json } => list(&address, json),
        Command::Watch { json } => watch(&address, json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed it.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let text = match failure {
                Failure::Unreachable(error, reason) => {
                    format!("{address}: {error}\n  reason: {reason}")
                }
                Failure::Manager(error) => format!("{address}: {error}"),
                Failure::Output(error) => format!("cannot print: {error}"),
            };
            eprintln!("{name}: {text}");
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    /// No manager can be reached, for this reason.
    Unreachable(ManagerError, Diagnosis),
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
    // The parent may wait for this line. If standard output is closed, the manager serves all the
    // same.
    let say = |address: &Address| _ = writeln!(io::stdout(), "listening at {address}");
    Ok(builder.address(address).serve(say)?)
}

/// Connects to a manager, or finds out why that is not possible.
fn connect(address: &Address) -> Result<Manager, Failure> {
    Manager::connect(address).map_err(|error| match error {
        ManagerError::ManagerGone | ManagerError::Io(_) => {
            Failure::Unreachable(error, Manager::diagnose(address))
        }
        error => error.into(),
    })
}

fn list(address: &Address, json: bool) -> Result<(), Failure> {
    let manager = connect(address)?;
    let rows: Vec<Row> = manager.list()?.into_iter().map(Row::first).collect();
    let text = if json { as_json(&rows)? } else { as_table(&rows, false) };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Prints a table each second. On a terminal, each replaces the last one.
fn watch(address: &Address, json: bool) -> Result<(), Failure> {
    let (interrupted, write) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    let manager = connect(address)?;
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
            (true, _) => as_json(&rows)?,
            // Moves the cursor to the top left, and clears the screen.
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
