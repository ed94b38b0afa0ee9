//! Threads of the library, and the signals that they block.
//!
//! Unsafe code: setting the signal mask of a thread, and starting one on a given stack.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, ptr, thread};

use rustix::thread::set_name;

/// Starts a thread of the library. It blocks all signals: a handler may need more stack than this
/// thread has, and a signal that the program waits for must not be delivered here.
pub(crate) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new().name(name.to_owned()).stack_size(64 * 1024);
    // A thread inherits the signal mask of the thread that starts it.
    let signals = set_blocked_signals(&all_signals());
    let started = builder.spawn(body);
    set_blocked_signals(&signals);
    started.map(drop)
}

/// Starts a thread that waits most of its life, as [`start_thread`] does, but faster: on a stack
/// that is part of the program, and without the alternative signal stack that std prepares. Once in
/// a process. `body` must not need much stack.
///
/// It is a thread of the C library nevertheless: setuid(2) changes its user as well.
pub(crate) fn start_small_thread(
    name: &'static CStr,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    /// What the C library requires (`PTHREAD_STACK_MIN`), thread-local variables, and the frames.
    const SIZE: usize = 64 * 1024;
    #[repr(align(4096))]
    struct Stack(UnsafeCell<[u8; SIZE]>);
    // SAFETY: only the address is used here. The thread alone accesses the contents.
    unsafe impl Sync for Stack {}
    static STACK: Stack = Stack(UnsafeCell::new([0; SIZE]));
    static IS_USED: AtomicBool = AtomicBool::new(false);

    type Body = Box<dyn FnOnce() + Send>;

    extern "C" fn run(body: *mut c_void) -> *mut c_void {
        // SAFETY: the pointer comes from `Box::into_raw` below, and is used once.
        let body = unsafe { Box::from_raw(body.cast::<Body>()) };
        body();
        ptr::null_mut()
    }

    assert!(!IS_USED.swap(true, Ordering::Relaxed), "the stack is for one thread");
    let body: Box<Body> = Box::new(Box::new(move || {
        let _ = set_name(name);
        body();
    }));
    let body = Box::into_raw(body);
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: it writes attributes to this address.
    unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
    // SAFETY: the attributes were initialised above.
    let mut attributes = unsafe { attributes.assume_init() };
    // SAFETY: the memory is that of a static, and no other code uses it.
    let error =
        unsafe { libc::pthread_attr_setstack(&raw mut attributes, STACK.0.get().cast(), SIZE) };
    debug_assert_eq!(error, 0, "the size is enough");
    // SAFETY: it changes the attributes, which were initialised.
    unsafe {
        libc::pthread_attr_setdetachstate(&raw mut attributes, libc::PTHREAD_CREATE_DETACHED)
    };
    let mut thread = MaybeUninit::uninit();
    let signals = set_blocked_signals(&all_signals());
    // SAFETY: the attributes are initialised, and `run` takes the pointer if a thread is started.
    let error = unsafe {
        libc::pthread_create(thread.as_mut_ptr(), &raw const attributes, run, body.cast())
    };
    set_blocked_signals(&signals);
    if error == 0 {
        return Ok(());
    }
    // SAFETY: no thread has it.
    let body = unsafe { Box::from_raw(body) };
    // The program's thread-local variables may need a larger stack.
    start_thread(name.to_str().unwrap_or_default(), body)
}

pub(crate) fn no_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: it writes a set to this address.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above.
    unsafe { set.assume_init() }
}

pub(crate) fn all_signals() -> libc::sigset_t {
    let mut set = no_signals();
    // SAFETY: it writes a set to this address, without the signals that the C library needs.
    unsafe { libc::sigfillset(&raw mut set) };
    set
}

/// Sets the signal mask of this thread. Returns the previous one.
pub(crate) fn set_blocked_signals(signals: &libc::sigset_t) -> libc::sigset_t {
    let mut before = no_signals();
    // SAFETY: it reads the first set and writes the second.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, signals, &raw mut before) };
    before
}
