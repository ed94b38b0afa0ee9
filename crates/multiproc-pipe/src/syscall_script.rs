//! System calls that fail by script, for tests. Compiled in only with `--cfg multiproc_faults`.
//!
//! A script belongs to the thread that wrote it. Each call of a kind takes the next fault of that
//! kind. After the last one, calls succeed.

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

/// The outcome of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The real outcome.
    Nothing,
    /// It fails without any effect.
    Error(Errno),
    /// It moves at most this many bytes (at least 1, since 0 would be an end of file).
    Short(usize),
    /// `recvmsg` only: the bytes arrive without the descriptors (`MSG_CTRUNC`).
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

/// Sets the outcomes of the next system calls of this thread, in place of an earlier script.
pub fn script(faults: &[(Call, Fault)]) {
    STATE.with_borrow_mut(|state| state.script = faults.iter().copied().collect());
}

/// Returns the number of faults of the script that no call has taken yet.
#[must_use]
pub fn left() -> usize {
    STATE.with_borrow(|state| state.script.len())
}

/// Returns how many of `count` bytes the call may move.
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

/// Returns `true` if the call that was just allowed loses its descriptors.
pub(crate) fn is_truncated() -> bool {
    STATE.with_borrow_mut(|state| std::mem::take(&mut state.is_truncated))
}

/// Parses a stream as a connection does, without a socket: `pieces` contains the sizes of the
/// pieces that arrive, repeated. Calls `each` with the bytes of each message.
///
/// # Errors
///
/// The reason why a receiver would report the stream as corrupted. `Ok` means that the stream ends
/// between two messages.
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
