//! What POSIX and the kernel have to lock and to wait with, in memory that processes share.
//!
//! Opens `unsafe` to map and view that memory, and to call libc, which is nearly all there is to it.
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

/// Memory with one [`Posix`] in it. It can be sent to other processes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory(Descriptor);

/// One of each.
#[derive(Debug)]
#[repr(C)]
pub struct Posix {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    semaphore: UnsafeCell<libc::sem_t>,
    /// To sleep on with `futex`; 0 at the start.
    pub words: [AtomicU32; 2],
}

/// Functions that return what went wrong, or 0.
fn check(error: libc::c_int) {
    assert_eq!(error, 0, "{}", io::Error::from_raw_os_error(error));
}

/// Functions that return -1 if something went wrong.
fn check_errno(result: libc::c_int) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

impl Memory {
    /// New memory: the mutex is free, the semaphore is 1.
    #[allow(clippy::new_without_default)] // it takes a descriptor
    #[must_use]
    pub fn new() -> Self {
        let descriptor = memfd_create("posix", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&descriptor, size_of::<Posix>() as u64).unwrap();
        let memory = Self(descriptor.into());
        memory.map().set_up();
        memory
    }

    /// Maps it. It stays mapped until the process ends: a robust mutex that was unmapped while
    /// somebody holds it would leave a dangling pointer in the list of that thread.
    #[must_use]
    pub fn map(&self) -> &'static Posix {
        let (protection, len) = (ProtFlags::READ | ProtFlags::WRITE, size_of::<Posix>());
        // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, &self.0, 0) }
            .unwrap();
        let start = NonNull::new(start).unwrap().cast::<Posix>();
        // SAFETY: mapped for ever, at a page, in full length (`new` set it, and nothing changes it).
        // What others may write lies in an `UnsafeCell` or is atomic, and any bytes are a `Posix`.
        unsafe { start.as_ref() }
    }
}

impl Posix {
    /// Before anybody else has it.
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
        // SAFETY: as above; the mutex is mapped, and nobody has it yet.
        check(unsafe { libc::pthread_mutex_init(self.mutex.get(), attributes) });
        // SAFETY: initialised, and not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) });
        // SAFETY: the semaphore is mapped, and nobody has it yet.
        check_errno(unsafe { libc::sem_init(self.semaphore.get(), 1, 1) });
    }

    /// Takes the robust mutex.
    #[inline]
    pub fn lock(&self) {
        // SAFETY: `Memory::new` initialised it, and it stays mapped.
        check(unsafe { libc::pthread_mutex_lock(self.mutex.get()) });
    }

    /// Frees the robust mutex. It checks whether this thread has it.
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
