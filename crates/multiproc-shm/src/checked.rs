//! A descriptor that is checked before it is used.
//!
//! A number in the descriptor table is no proof of ownership: other code in the process (a C
//! library's `close_range`, a daemon that closes "everything") may close it, and the next `open`
//! gets the same number. A system call on it would then act on an unrelated file. Therefore the
//! identity of the file is kept beside the number and compared before use: one fstat(2), about 0.2
//! µs.
//!
//! Contains `unsafe` for one call of dup3(2) onto a descriptor that is shared.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::fs::fstat;
use rustix::io::{DupFlags, dup3};

use crate::above_stdio;

/// A descriptor together with the device and inode of its file.
///
/// ```
/// use multiproc_shm::{CheckedFd, memfd};
///
/// # fn main() -> std::io::Result<()> {
/// let file = CheckedFd::new(memfd::create("mine")?)?;
/// assert!(file.is_intact());
/// let _descriptor = file.get()?; // an error if other code has closed it
/// # Ok(())
/// # }
/// ```
pub struct CheckedFd {
    /// Taken at the end, and not before.
    descriptor: Option<OwnedFd>,
    identity: (u64, u64),
}

impl CheckedFd {
    /// Records the identity that the file has now. The descriptor is moved
    /// [above the standard ones](above_stdio).
    ///
    /// # Errors
    ///
    /// If fstat(2) fails, or the process has as many descriptors open as it may.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let descriptor = above_stdio(descriptor)?;
        let stat = fstat(&descriptor)?;
        Ok(Self { descriptor: Some(descriptor), identity: (stat.st_dev, stat.st_ino) })
    }

    /// Keeps the identity that the file has now, and the number of the descriptor. A descriptor
    /// whose identity cannot be read is taken for closed.
    #[must_use]
    pub fn adopt(descriptor: OwnedFd) -> Self {
        // No file has the device 0.
        let identity = fstat(&descriptor).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino));
        Self { descriptor: Some(descriptor), identity }
    }

    /// Returns the descriptor as it is.
    #[must_use]
    pub fn into_inner(mut self) -> OwnedFd {
        self.descriptor.take().unwrap_or_else(|| unreachable!("taken only at the end"))
    }

    /// Returns the descriptor if it still refers to the file.
    ///
    /// # Errors
    ///
    /// If the number is closed or refers to another file.
    pub fn get(&self) -> io::Result<BorrowedFd<'_>> {
        if self.is_intact() { Ok(self.unchecked()) } else { Err(self.closed()) }
    }

    /// Returns the descriptor unchecked, for a call whose result is checked afterwards.
    #[inline]
    #[must_use]
    pub fn unchecked(&self) -> BorrowedFd<'_> {
        self.descriptor.as_ref().map_or_else(|| unreachable!("taken only at the end"), AsFd::as_fd)
    }

    /// Returns `true` if the descriptor still refers to the file.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        fstat(self.unchecked()).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity)
    }

    /// Makes the number refer to another open file description of the same file. Allocates only if
    /// it fails.
    ///
    /// # Errors
    ///
    /// If the number no longer refers to the file.
    pub fn replace(&self, fresh: impl AsFd) -> io::Result<()> {
        let number = self.get()?.as_raw_fd();
        // SAFETY: checked just above to be the number that `self` owns; it is not closed here.
        let mut target = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
        Ok(dup3(fresh, &mut target, DupFlags::CLOEXEC)?)
    }

    /// Returns the device and inode of the file.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    fn closed(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::NotConnected,
            format!(
                "descriptor {} of this object was closed by other code in this process (a \
                 `close_range`, or a `close` of a number that it does not own): keep descriptors of \
                 multiproc open, or open the object anew",
                self.unchecked().as_raw_fd()
            ),
        )
    }
}

/// Closes the descriptor, unless the number refers to another file by now.
impl Drop for CheckedFd {
    fn drop(&mut self) {
        if self.descriptor.is_some()
            && !self.is_intact()
            && let Some(not_ours) = self.descriptor.take()
        {
            let _ = not_ours.into_raw_fd();
        }
    }
}

impl fmt::Debug for CheckedFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckedFd").field(&self.unchecked().as_raw_fd()).finish()
    }
}
