//! A library that another program loads, and that tries to start a process.

// The program finds the function by its name.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char};

use multiproc_process::Process;

/// Tries to start a process. Returns the error, or null.
// SAFETY: nothing else in the program that loads it has this name.
#[unsafe(no_mangle)]
pub extern "C" fn multiproc_test_spawn(with_init: bool) -> *mut c_char {
    if with_init {
        std::mem::forget(multiproc_process::init());
    }
    match Process::spawn(|()| (), ()) {
        Ok(_) => std::ptr::null_mut(),
        Err(error) => CString::new(error.to_string()).unwrap_or_default().into_raw(),
    }
}

/// Starts a thread when it is loaded, if an environment variable demands it. Some libraries that
/// compute in parallel do so.
#[used]
// SAFETY: the loader calls the functions in this section, and this one has the type that it calls.
#[unsafe(link_section = ".init_array")]
static STARTS_THREAD: extern "C" fn() = {
    extern "C" fn start_thread() {
        if std::env::var_os("MULTIPROC_TEST_STARTS_THREAD").is_some() {
            std::thread::spawn(|| -> () {
                loop {
                    std::thread::park();
                }
            });
        }
    }
    start_thread
};
