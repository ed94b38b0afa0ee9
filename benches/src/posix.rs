//! The locks and semaphores of POSIX and the kernel's futex, in memory that processes share.
//!
//! Contains `unsafe` to map and view that memory and to call libc.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

use multiproc::pipe::Descriptor;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use serde::{Deserialize, Serialize};

/// Memory that contains one [`Posix`]. It can be sent to other processes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory(Descriptor);

/// A robust mutex, a semaphore and two futex words.
#[derive(Debug)]
#[repr(C)]
pub struct Posix {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    semaphore: UnsafeCell<libc::sem_t>,
    /// Futex words, initially 0.
    pub words: [AtomicU32; 2],
}

/// Checks the result of a function that returns an error number or 0.
fn check(error: libc::c_int) {
    assert_eq!(error, 0, "{}", io::Error::from_raw_os_error(error));
}

/// Checks the result of a function that returns -1 on failure.
fn check_errno(result: libc::c_int) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

impl Memory {
    /// Creates memory with a free mutex and a semaphore of 1.
    #[allow(clippy::new_without_default)] // it takes a descriptor
    #[must_use]
    pub fn new() -> Self {
        let descriptor = memfd_create("posix", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&descriptor, size_of::<Posix>() as u64).unwrap();
        let memory = Self(descriptor.into());
        memory.map().set_up();
        memory
    }

    /// Maps the memory until the process ends. Unmapping a robust mutex while a thread holds it
    /// would leave a dangling pointer in the list of that thread.
    #[must_use]
    pub fn map(&self) -> &'static Posix {
        let (protection, len) = (ProtFlags::READ | ProtFlags::WRITE, size_of::<Posix>());
        // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, &self.0, 0) }
            .unwrap();
        let start = NonNull::new(start).unwrap().cast::<Posix>();
        // SAFETY: mapped until the process ends, page-aligned, in full length (`new` set it, and
        // nothing changes it). Fields that others write are atomic or in an `UnsafeCell`,
        // and any bytes are a valid `Posix`.
        unsafe { start.as_ref() }
    }
}

impl Posix {
    /// Initialises it. Called before any other process has the memory.
    fn set_up(&self) {
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: there is room for attributes.
        check(unsafe { libc::pthread_mutexattr_init(attributes) });
        // SAFETY: they were initialised above.
        check(unsafe {
            libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
        });
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) });
        // SAFETY: as above; the mutex is mapped, and no other process has it yet.
        check(unsafe { libc::pthread_mutex_init(self.mutex.get(), attributes) });
        // SAFETY: initialised, and not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) });
        // SAFETY: the semaphore is mapped, and no other process has it yet.
        check_errno(unsafe { libc::sem_init(self.semaphore.get(), 1, 1) });
    }

    /// Locks the robust mutex.
    #[inline]
    pub fn lock(&self) {
        // SAFETY: `Memory::new` initialised it, and it stays mapped.
        check(unsafe { libc::pthread_mutex_lock(self.mutex.get()) });
    }

    /// Unlocks the robust mutex, which checks that this thread holds it.
    #[inline]
    pub fn unlock(&self) {
        // SAFETY: as in `lock`.
        check(unsafe { libc::pthread_mutex_unlock(self.mutex.get()) });
    }

    /// Lowers the semaphore.
    #[inline]
    pub fn wait(&self) {
        // SAFETY: `Memory::new` initialised it, and it stays mapped.
        check_errno(unsafe { libc::sem_wait(self.semaphore.get()) });
    }

    /// Raises the semaphore.
    #[inline]
    pub fn post(&self) {
        // SAFETY: as in `wait`.
        check_errno(unsafe { libc::sem_post(self.semaphore.get()) });
    }
}
