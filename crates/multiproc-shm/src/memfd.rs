//! The files behind the memory: made, checked, opened anew.

use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    CWD, FileType, MemfdFlags, Mode, OFlags, SealFlags, SeekFrom, Stat, fcntl_get_seals, fstat,
    fstatfs, memfd_create, openat, seek,
};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::above_stdio;

/// What statfs(2) says of the file system that memfds are on.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// What those of this crate are called.
pub(crate) const BYTES: &str = "multiproc:bytes";

/// A new one, empty, that can be sealed. The name is seen in `/proc/PID/maps`; it has no zeros, and 249
/// bytes at most.
///
/// # Errors
///
/// If there are no descriptors, or no memory.
pub fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let descriptor = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know NOEXEC_SEAL; newer ones ask for it, or warn.
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        result => result?,
    };
    above_stdio(descriptor)
}

/// Whether a file may become as large. Asked before, because the kernel's own answer is a signal.
pub(crate) fn check_limit(size: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if size > limit => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "expected to make shared memory of {size} bytes, and a file of this process may \
                 have {limit} at most (RLIMIT_FSIZE, `ulimit -f`): raise that limit"
            ),
        )),
        _ => Ok(()),
    }
}

/// Checks a file that came from elsewhere: it is a memfd with these seals. Returns its status.
pub(crate) fn check_seals(descriptor: impl AsFd, wanted: SealFlags) -> io::Result<Stat> {
    let stat = fstat(&descriptor)?;
    let file_type = FileType::from_raw_mode(stat.st_mode);
    // Of another file system (hugetlbfs), there may be no memory for it, and a read is a SIGBUS.
    if file_type != FileType::RegularFile || fstatfs(&descriptor)?.f_type != TMPFS_MAGIC {
        let what = match file_type {
            FileType::RegularFile => "a file on another file system".to_owned(),
            other => format!("a descriptor of kind {other:?}"),
        };
        return Err(invalid(format!("expected shared memory (a memfd), got {what}")));
    }
    let seals = match fcntl_get_seals(&descriptor) {
        Err(Errno::INVAL) => return Err(invalid("expected a memfd, got a file without seals")),
        result => result?,
    };
    let missing = names(wanted.difference(seals));
    if !missing.is_empty() {
        return Err(invalid(format!(
            "expected shared memory that its sender cannot change behind our back, and it lacks \
             {missing}"
        )));
    }
    Ok(stat)
}

/// Checks also that all of the file is there, so that reading it is safe. Returns its size.
pub(crate) fn check(descriptor: impl AsFd, wanted: SealFlags) -> io::Result<usize> {
    let stat = check_seals(&descriptor, wanted)?;
    let size = usize::try_from(stat.st_size).unwrap_or(0);
    // A hole gets its memory when it is read, and if there is none, that is a SIGBUS.
    if size > 0 && seek(&descriptor, SeekFrom::Hole(0))? != size as u64 {
        return Err(invalid(format!(
            "expected {size} bytes of shared memory, and some of them are holes"
        )));
    }
    Ok(size)
}

fn names(seals: SealFlags) -> String {
    let names: Vec<_> = seals.iter_names().map(|(name, _)| format!("F_SEAL_{name}")).collect();
    names.join(", ")
}

/// Opens a file anew: the same file, another open file description. `access` is [`OFlags::RDONLY`] or
/// [`OFlags::RDWR`]. Allocates nothing, unless it fails.
///
/// # Errors
///
/// If there is no `/proc`, which it goes through.
pub fn reopen(descriptor: impl AsFd, access: OFlags) -> io::Result<OwnedFd> {
    let descriptor = descriptor.as_fd();
    let mut path = [0; 32];
    write!(&mut path[..], "/proc/self/fd/{}", descriptor.as_raw_fd())?;
    let path = CStr::from_bytes_until_nul(&path).map_err(io::Error::other)?;
    let fresh = openat(CWD, path, access | OFlags::CLOEXEC, Mode::empty());
    let fresh = fresh.map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR => io::Error::new(
            io::ErrorKind::NotFound,
            "shared memory needs /proc, and it is not mounted here: `mount -t proc proc /proc`",
        ),
        _ => error.into(),
    })?;
    let (old, new) = (fstat(descriptor)?, fstat(&fresh)?);
    if (old.st_dev, old.st_ino) != (new.st_dev, new.st_ino) {
        return Err(io::Error::other("what is mounted on /proc is not the proc file system"));
    }
    above_stdio(fresh)
}

pub(crate) fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}
