//! Errors that cross to another process, and functions that return `Result`.

use std::error::Error;
use std::fmt;

use multiproc_message::Format;
use multiproc_process::{ExitStatus, JoinError, Process, RemoteError};
use multiproc_queue::Queue;
use multiproc_testkit::watchdog;
use serde::{Deserialize, Serialize};

multiproc_process::enable_in_tests!();

/// An error with a source, as libraries have them.
#[derive(Debug)]
struct Config(std::num::ParseIntError);

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is invalid")
    }
}

impl Error for Config {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

const CHAIN: [&str; 2] = ["the configuration is invalid", "invalid digit found in string"];

fn configure(text: &str) -> Result<u32, Config> {
    text.parse().map_err(Config)
}

/// Returns the texts of an error and its sources.
fn texts(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(source) = next {
        texts.push(source.to_string());
        next = source.source();
    }
    texts
}

fn work(text: String) -> Result<u32, RemoteError> {
    Ok(configure(&text)?)
}

#[test]
fn any_error_converts_with_its_sources() {
    let errors: [RemoteError; 5] = [
        configure("x").unwrap_err().into(),
        Box::<dyn Error + Send + Sync>::from(configure("x").unwrap_err()).into(),
        anyhow::Error::from(configure("x").unwrap_err()).into(),
        eyre::Report::new(configure("x").unwrap_err()).into(),
        RemoteError::new(&*Box::<dyn Error>::from(configure("x").unwrap_err())),
    ];
    for error in errors {
        assert_eq!(error.chain().map(ToString::to_string).collect::<Vec<_>>(), CHAIN);
        assert_eq!(texts(&*error), CHAIN);
    }
    assert_eq!(RemoteError::from("text"), RemoteError::from("text".to_owned()));
}

#[test]
fn debug_prints_the_chain_and_no_text_twice() {
    let error = work("x".to_owned()).unwrap_err();
    let text = "the configuration is invalid\n\nCaused by:\n    invalid digit found in string";
    assert_eq!(format!("{error:?}"), text);
    assert_eq!(format!("{:?}", JoinError::from(error)), text);
    // Ends with the text of its source.
    let refused = multiproc_process::SpawnError::Io(std::io::Error::other("refused"));
    let error = RemoteError::from(refused).context("no worker");
    let text = "no worker\n\nCaused by:\n    cannot start a process: refused";
    assert_eq!(format!("{error:?}"), text);
    assert_eq!(error.chain().count(), 3);
}

#[test]
fn chain_survives_both_formats() {
    let error = work("x".to_owned()).unwrap_err().context("worker 3");
    for format in [Format::Native, Format::Postcard] {
        let mut bytes = Vec::new();
        let descriptors = format.encode(&error, &mut bytes).unwrap();
        assert_eq!(format.decode::<RemoteError>(&bytes, descriptors).unwrap(), error);
    }
}

#[test]
fn chain_without_a_text_or_too_long_does_not_decode() {
    for (count, is_ok) in [(0, false), (1, true), (64, true), (65, false), (100_000, false)] {
        let mut bytes = Vec::new();
        Format::Native.encode(&vec!["text"; count], &mut bytes).unwrap();
        let error = Format::Native.decode::<RemoteError>(&bytes, Vec::new());
        assert_eq!(error.is_ok(), is_ok, "{count}");
    }
}

/// Its own source.
#[derive(Debug)]
struct Endless;

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("endless")
    }
}

impl Error for Endless {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&Endless)
    }
}

#[test]
fn endless_chain_is_cut_off_and_can_be_sent() {
    let error = RemoteError::from(Endless).context("one more");
    let mut bytes = Vec::new();
    Format::Native.encode(&error, &mut bytes).unwrap();
    let error = Format::Native.decode::<RemoteError>(&bytes, Vec::new()).unwrap();
    assert_eq!(error.chain().count(), 64);
}

#[test]
fn join_result_returns_the_value_or_the_chain_of_the_worker() {
    let _dog = watchdog();
    let spawn = |text: &str| Process::spawn(work, text.to_owned()).unwrap();
    assert_eq!(spawn("5").join_result(), Ok(5));
    let error = spawn("x").join_result().unwrap_err();
    assert!(matches!(error, JoinError::Failed(_)));
    assert_eq!(texts(&error), CHAIN);
}

#[test]
fn join_result_of_a_killed_worker_reports_the_signal() {
    let _dog = watchdog();
    let parks = |()| -> Result<(), RemoteError> {
        loop {
            std::thread::park();
        }
    };
    let worker = Process::spawn(parks, ()).unwrap();
    worker.kill().unwrap();
    assert_eq!(worker.join_result(), Err(JoinError::Signaled(9, false)));
}

/// An error that the parent distinguishes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Own {
    NotFound(String),
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NotFound(what) = self;
        write!(f, "no {what}")
    }
}

impl Error for Own {}

#[test]
fn error_type_of_the_program_arrives_as_it_is_or_as_a_join_error() {
    let _dog = watchdog();
    let fails = |what: String| -> Result<(), Own> { Err(Own::NotFound(what)) };
    let spawn = || Process::spawn(fails, "ink".to_owned()).unwrap();
    assert_eq!(spawn().join(), Ok(Err(Own::NotFound("ink".to_owned()))));
    assert_eq!(spawn().join_result().unwrap_err().to_string(), "no ink");
}

#[test]
fn process_whose_function_returns_an_error_exits_with_code_0() {
    let _dog = watchdog();
    let worker = Process::spawn(work, "x".to_owned()).unwrap();
    assert_eq!(worker.wait(), ExitStatus::Exited(0));
    assert!(worker.join().unwrap().is_err());
}

#[test]
fn error_travels_through_a_queue() {
    let _dog = watchdog();
    let results = Queue::bounded(2).unwrap();
    type Results = Queue<Result<u32, RemoteError>>;
    let put = |results: Results| results.put(work("x".to_owned())).unwrap();
    let worker = Process::spawn(put, results.clone()).unwrap();
    assert_eq!(texts(&*results.get().unwrap().unwrap_err()), CHAIN);
    worker.join().unwrap();
}

/// The ways to pass a worker's error on in the parent. Each must compile.
mod parent {
    use super::*;

    type Worker = Process<Result<u32, RemoteError>>;

    pub(super) fn boxed(worker: Worker) -> Result<u32, Box<dyn Error>> {
        Ok(worker.join()??)
    }

    pub(super) fn boxed_send(worker: Worker) -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(worker.join_result()?)
    }

    pub(super) fn join_error(worker: Worker) -> Result<u32, JoinError> {
        Ok(worker.join()??)
    }

    pub(super) fn remote(worker: Worker) -> Result<u32, RemoteError> {
        worker.join()?
    }

    pub(super) fn anyhow(worker: Worker) -> anyhow::Result<u32> {
        use anyhow::Context;
        worker.join_result().context("a worker")
    }

    pub(super) fn eyre(worker: Worker) -> eyre::Result<u32> {
        use eyre::WrapErr;
        worker.join_result().wrap_err("a worker")
    }

    #[cfg(feature = "anyhow")]
    pub(super) fn anyhow_twice(worker: Worker) -> anyhow::Result<u32> {
        Ok(worker.join()??)
    }

    #[cfg(feature = "eyre")]
    pub(super) fn eyre_twice(worker: Worker) -> eyre::Result<u32> {
        Ok(worker.join()??)
    }
}

#[test]
fn question_mark_passes_the_chain_on_in_the_parent() {
    let _dog = watchdog();
    let worker = || Process::spawn(work, "x".to_owned()).unwrap();
    assert_eq!(texts(&*parent::boxed(worker()).unwrap_err()), CHAIN);
    assert_eq!(texts(&*parent::boxed_send(worker()).unwrap_err()), CHAIN);
    assert_eq!(texts(&parent::join_error(worker()).unwrap_err()), CHAIN);
    assert_eq!(texts(&*parent::remote(worker()).unwrap_err()), CHAIN);
    let with_context = ["a worker", CHAIN[0], CHAIN[1]];
    assert_eq!(texts(&*parent::anyhow(worker()).unwrap_err()), with_context);
    assert_eq!(texts(&*parent::eyre(worker()).unwrap_err()), with_context);
    #[cfg(feature = "anyhow")]
    assert_eq!(texts(&*parent::anyhow_twice(worker()).unwrap_err()), CHAIN);
    #[cfg(feature = "eyre")]
    assert_eq!(texts(&*parent::eyre_twice(worker()).unwrap_err()), CHAIN);
}

/// Workers that use anyhow and eyre themselves.
#[test]
fn question_mark_converts_errors_of_anyhow_and_eyre_in_the_worker() {
    let _dog = watchdog();
    fn anyhow(text: String) -> Result<u32, RemoteError> {
        use anyhow::Context;
        Ok(configure(&text).context("anyhow")?)
    }
    fn eyre(text: String) -> Result<u32, RemoteError> {
        use eyre::WrapErr;
        Ok(configure(&text).wrap_err("eyre")?)
    }
    let run = |f: fn(String) -> Process<Result<u32, RemoteError>>| {
        texts(&f("x".to_owned()).join_result().unwrap_err())
    };
    assert_eq!(run(|text| Process::spawn(anyhow, text).unwrap()), ["anyhow", CHAIN[0], CHAIN[1]]);
    assert_eq!(run(|text| Process::spawn(eyre, text).unwrap()), ["eyre", CHAIN[0], CHAIN[1]]);
}
