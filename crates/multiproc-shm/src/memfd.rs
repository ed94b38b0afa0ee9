//! Memory files (memfds): creating, checking and reopening them.

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

/// The type that statfs(2) reports for the file system of memfds.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The name of memfds that hold bytes.
pub(crate) const BYTES: &str = "multiproc:bytes";

/// Creates an empty memfd that can be sealed. The name appears in `/proc/PID/maps`. It must have no
/// NUL and at most 249 bytes.
///
/// # Errors
///
/// If the process or the system has no descriptors or no memory left.
///
/// ```
/// use std::fs::File;
///
/// # fn main() -> std::io::Result<()> {
/// let file = File::from(multiproc_shm::memfd::create("table")?);
/// file.set_len(4096)?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "memfd_create")]
pub fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let descriptor = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know NOEXEC_SEAL. Newer ones warn without it.
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        result => result?,
    };
    above_stdio(descriptor)
}

/// Checks that a file may have `size` bytes. The kernel itself would answer with a signal, SIGXFSZ.
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

/// Checks that a received file is a memfd with these seals. Returns its status.
pub(crate) fn check_seals(descriptor: impl AsFd, wanted: SealFlags) -> io::Result<Stat> {
    let stat = fstat(&descriptor)?;
    let file_type = FileType::from_raw_mode(stat.st_mode);
    // On another file system (hugetlbfs) memory may be missing, and a read would be a SIGBUS.
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

/// Checks in addition that the file has no holes, so that reading it is safe. Returns its size.
pub(crate) fn check(descriptor: impl AsFd, wanted: SealFlags) -> io::Result<usize> {
    let stat = check_seals(&descriptor, wanted)?;
    let size = usize::try_from(stat.st_size).unwrap_or(0);
    // Reading a hole allocates its memory, which is a SIGBUS if there is none.
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

/// Reopens a file through `/proc/self/fd`: the same file with another open file description.
/// `access` is [`OFlags::RDONLY`] or [`OFlags::RDWR`]. Allocates only if it fails.
///
/// # Errors
///
/// If `/proc` is not mounted, or no descriptor is left.
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
