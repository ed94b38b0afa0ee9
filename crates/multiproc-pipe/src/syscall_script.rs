//! System calls that fail by script, for tests: compiled in by `--cfg multiproc_faults` and by
//! nothing else.
//!
//! A script belongs to the thread that wrote it. The calls of one kind meet the faults of that kind in
//! their order, one each; after the last one all goes well.

use std::cell::RefCell;
use std::collections::VecDeque;

pub use rustix::io::Errno;

/// A kind of system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `read`, from a pipe.
    Read,
    /// `write` or `writev`, to a pipe.
    Write,
    /// `pwritev2`, to a pipe, where SIGPIPE is not ignored.
    QuietWrite,
    /// `send` or `sendmsg`, to a socket, without descriptors.
    Send,
    /// `recv`, from a socket, inside the body of a large message.
    Recv,
    /// `sendmsg`, to a socket, with descriptors.
    SendMsg,
    /// `recvmsg`, from a socket, with descriptors if there are any.
    RecvMsg,
    /// `poll`.
    Poll,
    /// `socketpair`.
    SocketPair,
    /// `pipe2`.
    Pipe,
}

/// How a system call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// As it would have gone.
    Nothing,
    /// It does nothing but fail.
    Error(Errno),
    /// It moves at most so many bytes (at least 1: 0 would be an end of file).
    Short(usize),
    /// `recvmsg` only: the bytes come, and the descriptors do not (`MSG_CTRUNC`).
    Truncated,
}

#[derive(Default)]
struct State {
    script: VecDeque<(Call, Fault)>,
    is_truncated: bool,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Says how the next system calls of this thread go, in place of what was said before.
pub fn script(faults: &[(Call, Fault)]) {
    STATE.with_borrow_mut(|state| state.script = faults.iter().copied().collect());
}

/// How many faults of the script no call has met yet.
#[must_use]
pub fn left() -> usize {
    STATE.with_borrow(|state| state.script.len())
}

/// How many of `count` bytes the call may move.
pub(crate) fn allowed(call: Call, count: usize) -> rustix::io::Result<usize> {
    STATE.with_borrow_mut(|state| {
        let next = state.script.iter().position(|(of, _)| *of == call);
        let fault = next.and_then(|at| state.script.remove(at)).map(|(_, fault)| fault);
        state.is_truncated = fault == Some(Fault::Truncated);
        match fault {
            None | Some(Fault::Nothing | Fault::Truncated) => Ok(count),
            Some(Fault::Error(error)) => Err(error),
            Some(Fault::Short(most)) => Ok(count.min(most.max(1))),
        }
    })
}

/// Whether the call that was just allowed is to lose its descriptors.
pub(crate) fn is_truncated() -> bool {
    STATE.with_borrow_mut(|state| std::mem::take(&mut state.is_truncated))
}

/// Takes a stream apart as a connection does, without a socket: `pieces` says how many bytes come at
/// a time, over and over. Gives each message's bytes to `each`.
///
/// # Errors
///
/// What a receiver would say is corrupted; `Ok` is a stream that ends between two messages.
pub fn take_apart(
    stream: &[u8],
    pieces: &[usize],
    mut each: impl FnMut(&[u8]),
) -> Result<(), String> {
    use crate::frame::{Assembler, Space};
    let mut assembler = Assembler::new();
    let mut rest = stream;
    let mut sizes = pieces.iter().cycle();
    loop {
        while let Some(frame) = assembler.next()? {
            each(&frame.body);
        }
        if rest.is_empty() {
            let ends = if assembler.is_inside_frame() { Err("inside a message") } else { Ok(()) };
            return ends.map_err(str::to_owned);
        }
        let piece = (*sizes.next().unwrap_or(&rest.len())).clamp(1, rest.len());
        let count = match assembler.space().map_err(|error| error.to_string())? {
            Space::Ahead(space, _) => {
                let count = piece.min(space.len());
                space[..count].copy_from_slice(&rest[..count]);
                assembler.filled(count);
                count
            }
            Space::Body(body) => {
                let count = piece.min(body.capacity() - body.len());
                body.extend_from_slice(&rest[..count]);
                count
            }
        };
        rest = &rest[count..];
    }
}
