//! In a test program, a child runs its function after all constructors have run, and exits as a
//! program does.

// Constructors, which no safe code declares.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use multiproc_process::Process;
use multiproc_testkit::watchdog;

type Arguments = *const *const c_char;

/// One bit for each of the constructors below that has run.
static READY: AtomicU32 = AtomicU32::new(0);

/// Sets the bit of a constructor, and checks that it was not set.
fn get_ready(bit: u32) {
    assert_eq!(READY.fetch_or(1 << bit, Ordering::Relaxed) & 1 << bit, 0);
}

macro_rules! constructor {
    ($name:ident $section:literal $bit:literal) => {
        #[used]
        // SAFETY: the loader calls the functions in this section, and this one has that type.
        #[unsafe(link_section = $section)]
        static $name: extern "C" fn() = {
            extern "C" fn constructor() {
                get_ready($bit);
            }
            constructor
        };
    };
}

constructor!(EARLY ".init_array.00001" 0);
constructor!(BEFORE ".init_array" 1);
multiproc_process::enable_in_tests!();
constructor!(BEHIND ".init_array" 2);
multiproc_process::enable_in_tests!();
constructor!(LAST ".init_array" 3);

#[used]
// SAFETY: the loader calls the functions in this section, with these arguments if it is glibc's.
#[unsafe(link_section = ".init_array")]
static LOOKS_AT_ARGUMENTS: extern "C" fn(c_int, Arguments, Arguments) = {
    extern "C" fn constructor(count: c_int, arguments: Arguments, environment: Arguments) {
        if cfg!(target_env = "gnu") {
            assert!(count > 0);
            // SAFETY: glibc passes the program's arguments, and there is at least one.
            let first = unsafe { arguments.read() };
            // SAFETY: it is a string with its final zero.
            let first = unsafe { CStr::from_ptr(first) };
            assert_eq!(first.to_str().ok(), std::env::args().next().as_deref());
            assert!(!environment.is_null());
        }
        get_ready(4);
    }
    constructor
};

/// The descriptor that `OPENS_FILE` has opened.
static OPENED: AtomicI32 = AtomicI32::new(-1);

/// Opens a file without close-on-exec. It runs after the library's own constructor, which has
/// closed inherited descriptors.
#[used]
// SAFETY: the loader calls the functions in this section, and this one has that type.
#[unsafe(link_section = ".init_array")]
static OPENS_FILE: extern "C" fn() = {
    extern "C" fn constructor() {
        assert!(std::env::var_os("MULTIPROC_CHILD").is_none());
        // SAFETY: a path with its final zero.
        let file = unsafe { libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY) };
        OPENED.store(file, Ordering::Relaxed);
    }
    constructor
};

/// A child closes the descriptors that it has inherited, and not those that it has opened.
#[test]
fn descriptors_opened_by_constructors_stay_open() {
    let _dog = watchdog();
    let look = |()| {
        let number = OPENED.load(Ordering::Relaxed);
        let link = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let same = links.filter(|entry| {
            std::fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|it| it == link)
        });
        (link.display().to_string(), same.count())
    };
    // One each: the parent's is closed, the child's own is open.
    let expected = ("/dev/zero".to_owned(), 1);
    assert_eq!(look(()), expected);
    assert_eq!(Process::spawn(look, ()).unwrap().join().unwrap(), expected);
}

extern "C" fn says_goodbye() {
    let text = "goodbye\n";
    // SAFETY: it reads the text.
    unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
}

#[test]
fn constructors_run_once_before_the_function() {
    let _dog = watchdog();
    let all = 0b11111;
    assert_eq!(READY.load(Ordering::Relaxed), all, "in the test program itself");
    let look = |()| {
        let nested = Process::spawn(|()| READY.load(Ordering::Relaxed), ()).unwrap();
        (READY.load(Ordering::Relaxed), nested.join().unwrap())
    };
    assert_eq!(Process::spawn(look, ()).unwrap().join().unwrap(), (all, all));
}

/// Coverage data is written this way.
#[test]
fn exit_handlers_run_in_a_child() {
    let _dog = watchdog();
    let register = |panics: bool| {
        // SAFETY: the handler may be called at any time.
        assert_eq!(unsafe { libc::atexit(says_goodbye) }, 0);
        assert!(!panics);
    };
    for panics in [false, true] {
        let mut child = Process::builder().stdout(Stdio::piped()).spawn(register, panics).unwrap();
        let mut text = String::new();
        child.take_stdout().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "goodbye\n");
        assert_eq!(child.join().is_err(), panics);
    }
}
