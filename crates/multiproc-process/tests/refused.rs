//! Requests that the library must refuse, and failures of the system.

// Calls the loader's `dlopen`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use multiproc_process::{JoinError, Process, SpawnError, active_children};
use multiproc_queue::Queue;
use multiproc_testkit::{Census, alone, example, refuse_call, until, watchdog};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

multiproc_process::enable_in_tests!();

/// Cannot be decoded.
#[derive(Serialize)]
struct Unreadable;

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("it cannot be read"))
    }
}

#[test]
fn decode_errors_name_the_type() {
    let _dog = watchdog();
    let child = Process::spawn(|_: Unreadable| (), Unreadable).unwrap();
    let error = child.join().unwrap_err();
    assert!(matches!(error, JoinError::ArgumentsLost(_)), "{error}");
    assert!(error.to_string().contains("Unreadable"), "{error}");

    let child = Process::spawn(|()| Unreadable, ()).unwrap();
    let Err(error) = child.join() else { panic!("it cannot have come") };
    assert!(matches!(error, JoinError::ResultLost(_)), "{error}");
    assert!(error.to_string().contains("Unreadable"), "{error}");
}

/// Panics while it is encoded.
#[derive(Deserialize)]
struct Explosive;

impl Serialize for Explosive {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("it goes off")
    }
}

#[test]
fn panic_in_serialize_of_the_result_is_reported() {
    let _dog = watchdog();
    let Err(error) = Process::spawn(|()| Explosive, ()).unwrap().join() else { panic!() };
    let JoinError::Panicked { message, .. } = error else { panic!("{error}") };
    assert_eq!(message, "it goes off");
}

/// Panics while it is decoded.
#[derive(Serialize)]
struct Checked(u32);

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        assert!(number < 10, "out of range: {number}");
        Ok(Self(number))
    }
}

#[test]
fn panic_in_deserialize_of_the_arguments_is_reported() {
    let _dog = watchdog();
    let child = Process::spawn(|checked: Checked| checked.0, Checked(11)).unwrap();
    assert_eq!(child.wait().code(), Some(101));
    let error = child.join().unwrap_err();
    let JoinError::Panicked { message, location, .. } = error else { panic!("{error}") };
    assert_eq!(message, "out of range: 11");
    assert!(location.contains("tests/refused.rs:"), "{location}");
}

/// A panic payload that panics when it is dropped.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic!("it goes off");
    }
}

#[test]
fn panic_whose_payload_panics_is_reported() {
    let _dog = watchdog();
    let child = Process::spawn(|()| -> () { std::panic::panic_any(Payload) }, ()).unwrap();
    assert_eq!(child.wait().code(), Some(101));
    let error = child.join().unwrap_err();
    let JoinError::Panicked { message, location, .. } = error else { panic!("{error}") };
    assert_eq!(message, "a panic whose payload is not a string");
    assert!(location.contains("tests/refused.rs:"), "{location}");
}

/// As another user, because root has no limit of processes.
#[test]
fn spawn_at_the_process_limit_fails_and_works_later() {
    const NOBODY: u32 = 65_534;
    let _dog = watchdog();
    if env::var_os("INNER").is_none() {
        if !rustix::process::getuid().is_root() {
            eprintln!("skipped: this process cannot become another user's");
            return;
        }
        // The folders of the program may be closed to other users.
        let mut command = Command::new("/proc/self/exe");
        command.args(["spawn_at_the_process_limit", "--nocapture"]).env("INNER", "1").uid(NOBODY);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        return;
    }
    alone(|()| {
        let before = Census::take();
        let limits = getrlimit(Resource::Nproc);
        for _ in 0..3 {
            setrlimit(Resource::Nproc, Rlimit { current: Some(1), ..limits }).unwrap();
            let error = Process::spawn(|()| (), ()).unwrap_err();
            setrlimit(Resource::Nproc, limits).unwrap();
            assert!(matches!(error, SpawnError::Io(_)), "{error}");
            assert!(error.to_string().contains("temporarily unavailable"), "{error}");
            assert_eq!(Census::take(), before);
            assert!(active_children().is_empty());
            assert_eq!(Process::spawn(|()| 7, ()).unwrap().join().unwrap(), 7);
        }

        // With a slightly higher limit, the child starts but cannot start a thread: the one that
        // runs the function, or the one that watches the parent. It prints the reason and runs
        // nothing.
        let [mut refused, mut ended] = [0; 2];
        for current in 1.. {
            setrlimit(Resource::Nproc, Rlimit { current: Some(current), ..limits }).unwrap();
            let builder = Process::builder().daemon(true).stderr(Stdio::piped());
            let child = builder.spawn(|()| 7, ());
            setrlimit(Resource::Nproc, limits).unwrap();
            match child {
                Err(SpawnError::Io(_)) => refused += 1,
                Err(error) => panic!("{error}"),
                Ok(mut child) => {
                    let mut text = String::new();
                    child.take_stderr().unwrap().read_to_string(&mut text).unwrap();
                    match child.join() {
                        Ok(seven) => {
                            assert_eq!(seven, 7);
                            break;
                        }
                        Err(JoinError::Signaled(6, _) | JoinError::Exited(101)) => {
                            assert!(text.starts_with("multiproc: a "), "{text}");
                            ended += 1;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            assert_eq!(Census::take(), before);
        }
        assert!(refused > 0 && ended >= 2, "{refused} refused, {ended} ended");
    });
}

/// A copy of this test program removes its own file, and still starts processes.
#[test]
fn removed_or_replaced_executable_still_spawns() {
    let me = env::current_exe().unwrap();
    if let Some(how) = env::var_os("INNER") {
        let _dog = watchdog();
        if how == "replaced" {
            let other = me.with_extension("other");
            fs::write(&other, "no program").unwrap();
            fs::rename(&other, &me).unwrap();
        } else {
            fs::remove_file(&me).unwrap();
        }
        let nested = |n: u32| Process::spawn(|n: u32| n + 1, n).unwrap().join().unwrap() + 1;
        assert_eq!(Process::spawn(nested, 1).unwrap().join().unwrap(), 3);
        return;
    }
    // Alone, because a process that another test starts would hold the copy open for writing for a
    // moment, and such a file cannot be executed.
    alone(|()| {
        let me = env::current_exe().unwrap();
        let folder = env::temp_dir().join(format!("multiproc-refused-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        for how in ["replaced", "removed"] {
            let copy = folder.join("copy");
            fs::copy(&me, &copy).unwrap();
            let mut command = Command::new(&copy);
            command.args(["--exact", "removed_or_replaced_executable_still_spawns"]);
            let output = command.env("INNER", how).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{how}: {output:?}");
            assert_eq!(copy.exists(), how == "replaced");
        }
        fs::remove_dir_all(&folder).unwrap();
    });
}

/// A child would run the program that has loaded the library.
#[test]
fn loaded_library_cannot_spawn() {
    alone(|()| {
        let path = example("programs").with_file_name("liblibrary.so");
        assert!(path.exists(), "{} is not built: run `cargo build --examples`", path.display());
        let before = Census::take().children;
        for with_init in [false, true] {
            let error = spawn_from(&path, with_init).expect("an error");
            assert!(error.contains("multiproc is in a library"), "{error}");
        }
        assert_eq!(Census::take().children, before);
        // The program itself still can.
        Process::spawn(|()| (), ()).unwrap().join().unwrap();
        until(|| active_children().is_empty());
    });
}

/// `/proc/self/exe` is the loader then.
#[test]
fn program_started_through_the_loader_cannot_spawn() {
    let _dog = watchdog();
    let Some(loader) = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"]
        .into_iter()
        .find(|path| Path::new(path).exists())
    else {
        eprintln!("skipped: there is no loader where it is expected");
        return;
    };
    let output = Command::new(loader).arg(example("programs")).arg("is_plain").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "not in the executable\n");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("by its own name") && !text.contains("function"), "{text}");
}

#[test]
fn threads_before_init_exit_the_child_with_a_message() {
    let _dog = watchdog();
    let output = Command::new(example("programs")).arg("starts_threads").output().unwrap();
    assert!(output.status.success(), "the parent goes on: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "exited 102\n");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("call it first") && text.lines().count() == 1, "{text}");
}

/// They exist before `main`, in the parent as well.
#[test]
fn threads_of_loaded_libraries_are_accepted() {
    let _dog = watchdog();
    let library = example("programs").with_file_name("liblibrary.so");
    let mut command = Command::new(example("programs"));
    command.env("LD_PRELOAD", library).env("MULTIPROC_TEST_STARTS_THREAD", "1");
    let output = command.arg("is_plain").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n");
}

/// Some container runtimes do not know the call.
#[test]
fn missing_pidfd_open_is_named_in_the_error() {
    for error in [libc::EPERM, libc::ENOSYS] {
        let test = |error: i32| {
            let before = Census::take();
            refuse_call(libc::SYS_pidfd_open, error);
            let error = Process::spawn(|()| (), ()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("pidfd_open(2)") && text.contains("seccomp"), "{text}");
            assert_eq!(Census::take(), before);
        };
        Process::spawn(test, error).unwrap().join().unwrap();
    }
}

/// The causes of a failed creation are distinguished.
#[test]
fn queue_errors_name_the_missing_resource() {
    alone(|()| {
        let make = || Queue::<u32>::bounded(1).unwrap_err().to_string();
        let limits = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limits }).unwrap();
        let text = make();
        setrlimit(Resource::Nofile, limits).unwrap();
        assert!(text.contains("Too many open files") && !text.contains("address space"), "{text}");

        let limits = getrlimit(Resource::As);
        setrlimit(Resource::As, Rlimit { current: Some(1 << 30), ..limits }).unwrap();
        let builder = Queue::<u32>::builder().max_bytes(4 << 30);
        let text = builder.build().unwrap_err().to_string();
        setrlimit(Resource::As, limits).unwrap();
        assert!(text.contains("address space") && text.contains("max_bytes"), "{text}");

        refuse_call(libc::SYS_memfd_create, libc::ENOSYS);
        let text = make();
        assert!(text.contains("not implemented") && !text.contains("address space"), "{text}");
    });
}

fn spawn_from(library: &Path, with_init: bool) -> Option<String> {
    let path = CString::new(library.as_os_str().as_bytes()).unwrap();
    // SAFETY: a path with its final zero. What the library does when it is loaded is harmless.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null());
    // SAFETY: a handle that is valid, and a name with its final zero.
    let symbol = unsafe { libc::dlsym(handle, c"multiproc_test_spawn".as_ptr()) };
    assert!(!symbol.is_null());
    // SAFETY: that is how the library declares it.
    let spawn: extern "C" fn(bool) -> *mut c_char = unsafe { std::mem::transmute(symbol) };
    let error = spawn(with_init);
    // SAFETY: if not null, it is a string that the caller owns.
    (!error.is_null()).then(|| unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned())
}

/// A program that a child starts by other means does not take itself for a child of this library.
#[test]
fn marker_is_not_inherited_by_other_programs() {
    let _dog = watchdog();
    let run = |()| {
        let output = Command::new(example("programs")).arg("names").output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(Process::spawn(run, ()).unwrap().join().unwrap(), (true, String::new()));
}
