//! The system calls of messages: those of rustix, unchanged in an ordinary build.
//!
//! With `--cfg multiproc_faults`, the script of a test decides the outcome of each call: see
//! [`syscall_script`](crate::syscall_script).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};

use multiproc_shm::sigpipe;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, Timespec};
use rustix::io::{Errno, ReadWriteFlags, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, RecvMsg, SendAncillaryBuffer, SendFlags,
    SocketFlags, SocketType,
};
use rustix::pipe::PipeFlags;

#[cfg(not(multiproc_faults))]
use ordinary::{Call, allowed, is_truncated};

#[cfg(multiproc_faults)]
use crate::syscall_script::{Call, allowed, is_truncated};

/// Everything is allowed, which the optimiser sees.
#[cfg(not(multiproc_faults))]
mod ordinary {
    pub(super) enum Call {
        Read,
        Write,
        QuietWrite,
        Send,
        Recv,
        SendMsg,
        RecvMsg,
        Poll,
        SocketPair,
        Pipe,
    }

    /// Returns how many of `count` bytes the call may move.
    #[inline(always)]
    pub(super) fn allowed(_: Call, count: usize) -> rustix::io::Result<usize> {
        Ok(count)
    }

    /// Returns `true` if received descriptors are to be lost.
    #[inline(always)]
    pub(super) fn is_truncated() -> bool {
        false
    }
}

#[inline]
pub(crate) fn read(fd: impl AsFd, bytes: &mut [u8]) -> Result<usize> {
    let count = allowed(Call::Read, bytes.len())?;
    rustix::io::read(fd, &mut bytes[..count])
}

/// Appends to `bytes`, up to its spare capacity.
#[inline]
pub(crate) fn read_spare(fd: impl AsFd, bytes: &mut Vec<u8>) -> Result<usize> {
    let room = bytes.capacity() - bytes.len();
    let count = allowed(Call::Read, room)?;
    if count < room {
        return append(bytes, count, |few| rustix::io::read(fd, few));
    }
    rustix::io::read(fd, spare_capacity(bytes))
}

#[inline]
pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize> {
    rustix::io::write(fd, &bytes[..allowed(Call::Write, bytes.len())?])
}

#[inline]
pub(crate) fn send(fd: impl AsFd, bytes: &[u8], flags: SendFlags) -> Result<usize> {
    rustix::net::send(fd, &bytes[..allowed(Call::Send, bytes.len())?], flags)
}

/// Appends to `bytes`, up to its spare capacity.
#[inline]
pub(crate) fn recv_spare(fd: impl AsFd, bytes: &mut Vec<u8>, flags: RecvFlags) -> Result<usize> {
    let room = bytes.capacity() - bytes.len();
    let count = allowed(Call::Recv, room)?;
    if count < room {
        return append(bytes, count, |few| rustix::net::recv(fd, few, flags).map(|(n, _)| n));
    }
    rustix::net::recv(fd, spare_capacity(bytes), flags).map(|(count, _)| count)
}

/// Returns the part of the pieces for a call that may move only `count` bytes.
#[cold]
fn append(
    bytes: &mut Vec<u8>,
    count: usize,
    call: impl FnOnce(&mut [u8]) -> Result<usize>,
) -> Result<usize> {
    let mut few = vec![0; count];
    let count = call(&mut few)?;
    bytes.extend_from_slice(&few[..count]);
    Ok(count)
}

/// Writes two pieces in one call.
#[inline]
pub(crate) fn write_two(fd: impl AsFd, bytes: [&[u8]; 2]) -> Result<usize> {
    rustix::io::writev(fd, &slices(Call::Write, bytes)?)
}

/// Writes to a pipe in a process that does not ignore SIGPIPE, without raising it if the reader is
/// gone.
#[cold]
pub(crate) fn write_quietly(fd: impl AsFd, bytes: [&[u8]; 2]) -> Result<usize> {
    // RWF_NOSIGNAL, since Linux 6.18.
    let no_signal = ReadWriteFlags::from_bits_retain(0x100);
    // A pipe has no offset.
    let quiet = slices(Call::QuietWrite, bytes)
        .and_then(|bytes| rustix::io::pwritev2(&fd, &bytes, u64::MAX, no_signal));
    match quiet {
        // An older kernel, or a sandbox that allows only older calls.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            let bytes = slices(Call::Write, bytes)?;
            sigpipe::blocked(|| rustix::io::writev(&fd, &bytes))
        }
        result => result,
    }
}

#[inline]
pub(crate) fn send_two(fd: impl AsFd, bytes: [&[u8]; 2], flags: SendFlags) -> Result<usize> {
    let bytes = slices(Call::Send, bytes)?;
    rustix::net::sendmsg(fd, &bytes, &mut SendAncillaryBuffer::default(), flags)
}

#[inline]
pub(crate) fn sendmsg(
    fd: impl AsFd,
    bytes: [&[u8]; 2],
    control: &mut SendAncillaryBuffer<'_, '_, '_>,
    flags: SendFlags,
) -> Result<usize> {
    rustix::net::sendmsg(fd, &slices(Call::SendMsg, bytes)?, control, flags)
}

/// Returns as much of both pieces as is allowed.
#[inline]
fn slices(call: Call, [first, second]: [&[u8]; 2]) -> Result<[IoSlice<'_>; 2]> {
    let count = allowed(call, first.len() + second.len())?;
    let in_first = count.min(first.len());
    Ok([IoSlice::new(&first[..in_first]), IoSlice::new(&second[..count - in_first])])
}

#[inline]
pub(crate) fn recvmsg(
    fd: impl AsFd,
    bytes: &mut [u8],
    control: &mut RecvAncillaryBuffer<'_>,
    flags: RecvFlags,
) -> Result<RecvMsg> {
    let count = allowed(Call::RecvMsg, bytes.len())?;
    let bytes = &mut [IoSliceMut::new(&mut bytes[..count])];
    let mut message = rustix::net::recvmsg(fd, bytes, control, flags)?;
    if is_truncated() {
        // As in the kernel: the bytes arrive, the descriptors are closed.
        control.drain().for_each(drop);
        message.flags |= rustix::net::ReturnFlags::CTRUNC;
    }
    Ok(message)
}

#[inline]
pub(crate) fn poll(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize> {
    allowed(Call::Poll, 1)?;
    rustix::event::poll(fds, timeout)
}

pub(crate) fn socketpair(
    domain: AddressFamily,
    kind: SocketType,
    flags: SocketFlags,
) -> Result<(OwnedFd, OwnedFd)> {
    allowed(Call::SocketPair, 1)?;
    rustix::net::socketpair(domain, kind, flags, None)
}

pub(crate) fn pipe_with(flags: PipeFlags) -> Result<(OwnedFd, OwnedFd)> {
    allowed(Call::Pipe, 1)?;
    rustix::pipe::pipe_with(flags)
}
