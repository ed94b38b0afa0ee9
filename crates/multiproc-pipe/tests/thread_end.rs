//! Sending and receiving at the end of a thread and of a process, after its thread-locals are
//! destroyed.

// Registers a handler of atexit(3).
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::fs::File;
use std::sync::{Mutex, OnceLock};
use std::thread;

use multiproc::Process;
use multiproc_pipe::{Connection, Descriptor, duplex};
use multiproc_testkit::watchdog;

multiproc::enable_in_tests!();

type Message = (String, Descriptor);

fn message(text: &str) -> Message {
    (text.to_owned(), File::open("/dev/null").unwrap().into())
}

/// Sends and receives messages with descriptors when it is dropped.
struct Goodbye {
    mail: Connection<Message, Message>,
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        self.mail.send(message("goodbye")).unwrap();
        let (text, _file) = self.mail.recv().unwrap();
        assert_eq!(text, "and to you");
        self.mail.send(message("thanks")).unwrap();
    }
}

thread_local! {
    static GOODBYE: RefCell<Option<Goodbye>> = const { RefCell::new(None) };
}

#[test]
fn thread_local_destructor_can_send_and_receive() {
    let _dog = watchdog();
    let (mail, theirs) = duplex::<Message, Message>().unwrap();
    let thread = thread::spawn(move || {
        GOODBYE.set(Some(Goodbye { mail }));
        // The library's own thread-locals are first used here, so they are destroyed before.
        GOODBYE.with_borrow(|goodbye| {
            goodbye.as_ref().unwrap().mail.send(message("hello")).unwrap();
        });
    });
    assert_eq!(theirs.recv().unwrap().0, "hello");
    assert_eq!(theirs.recv().unwrap().0, "goodbye");
    theirs.send(message("and to you")).unwrap();
    assert_eq!(theirs.recv().unwrap().0, "thanks");
    thread.join().unwrap();
}

static MAIL: OnceLock<Mutex<Option<Connection<Message, Message>>>> = OnceLock::new();

extern "C" fn at_exit() {
    let mail = MAIL.get().and_then(|mail| mail.lock().ok()?.take());
    drop(mail.map(|mail| Goodbye { mail }));
}

#[test]
fn atexit_handler_can_send_and_receive() {
    let _dog = watchdog();
    let (mail, theirs) = duplex::<Message, Message>().unwrap();
    let ends = |mail: Connection<Message, Message>| {
        mail.send(message("hello")).unwrap();
        MAIL.get_or_init(Mutex::default).lock().unwrap().replace(mail);
        // SAFETY: the handler may be called at any time.
        unsafe { libc::atexit(at_exit) };
    };
    let child = Process::spawn(ends, mail).unwrap();
    assert_eq!(theirs.recv().unwrap().0, "hello");
    assert_eq!(theirs.recv().unwrap().0, "goodbye");
    theirs.send(message("and to you")).unwrap();
    assert_eq!(theirs.recv().unwrap().0, "thanks");
    child.join().unwrap();
}
