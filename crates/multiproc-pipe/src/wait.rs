//! Waiting for the first of several sources.

use std::fs::File;
use std::io::{self, PipeReader, Stdin};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{ChildStderr, ChildStdout};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::connection::{Connection, Receiver};
use multiproc_message::Descriptor;
use multiproc_shm::Deadline;

/// A source that [`wait`] can wait for: it has a descriptor that becomes readable when it is ready.
///
/// This suffices for a plain descriptor. A source with a state of its own implements
/// [`prepare`](Self::prepare) and [`woken`](Self::woken): a [`Connection`] may have read a message
/// ahead, so that it is ready although nothing is readable, and it may have been woken by a part of
/// a message, so that it is not ready although something was readable.
///
/// A source of a program's own, which passes on what it consists of:
///
/// ```
/// use multiproc_pipe::{Receiver, Source, simplex, wait};
/// use std::io;
/// use std::os::fd::BorrowedFd;
/// use std::time::Duration;
///
/// /// A named stream of log lines.
/// struct Log {
///     name: String,
///     lines: Receiver<String>,
/// }
///
/// impl Source for Log {
///     fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
///         self.lines.watch(add);
///     }
///     fn prepare(&self) -> io::Result<bool> {
///         self.lines.prepare()
///     }
///     fn woken(&self) -> io::Result<bool> {
///         self.lines.woken()
///     }
///     fn longest_sleep(&self) -> Duration {
///         self.lines.longest_sleep()
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (lines, sender) = simplex()?;
/// let log = Log { name: "worker".to_owned(), lines };
/// sender.send("started".to_owned())?;
/// assert_eq!(wait([&log], None)?, [0]);
/// assert_eq!((&*log.name, log.lines.recv()?), ("worker", "started".to_owned()));
/// # Ok(())
/// # }
/// ```
pub trait Source {
    /// Adds the descriptors to watch. Called before each sleep, after [`prepare`](Self::prepare).
    fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>));

    /// Called before each sleep. Returns `true` if the source is ready now, so that `wait` does not
    /// sleep.
    ///
    /// `false` promises that a descriptor becomes readable when the source becomes ready. A source
    /// that is notified in another way arranges this here and then checks once more.
    ///
    /// # Errors
    ///
    /// If this cannot be determined. The error ends the `wait`.
    fn prepare(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Called when a descriptor is readable. Returns `true` if the source is ready. Otherwise the
    /// cause has been consumed, so that the next sleep does not return at once.
    ///
    /// # Errors
    ///
    /// If this cannot be determined. The error ends the `wait`.
    fn woken(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Returns the maximum length of a sleep before [`prepare`](Self::prepare) is called again, for
    /// a source whose notification can be lost with a killed process.
    fn longest_sleep(&self) -> Duration {
        Duration::MAX
    }
}

/// Waits until one or more of the sources are ready, and returns the indices of *all* ready ones in
/// order.
///
/// A source is ready as follows:
///
/// - a [`Connection`] or [`Receiver`]: `recv` would return at once, with a message or an error.
///   This includes the death of the other side. A message that was read ahead counts, a part of one
///   does not.
/// - a [`Listener`](crate::Listener): a client waits to be accepted.
/// - a process (of the crate `multiproc`): it has ended.
/// - any other descriptor: it is readable, or its other side is gone.
///
/// `timeout` is the maximum time to wait: `None` waits indefinitely, zero does not wait. The result
/// is empty if it expires, and at once if there are no sources.
///
/// All sources must be of one type. Pass sources of several types as `&dyn Source` or `as_fd()`. A
/// connection may have read ahead, which its descriptor does not show, so pass connections
/// themselves. The number of sources is limited by the number of descriptors that the process may
/// have. A [`WaitSet`](crate::WaitSet) keeps its sources from call to call.
///
/// # A result, a message or a worker's death
///
/// A process may be killed at any time, and what it sent before is still to be received. So wait
/// for the process *and* for what comes from it, and continue until the latter has ended:
///
/// ```
/// use multiproc::{Process, Producer, Queue, Source, wait};
///
/// multiproc::enable_in_tests!();
///
/// fn work(results: Producer<u32>) {
///     results.put(7).unwrap();
///     std::process::abort(); // as if it was killed
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let queue = Queue::bounded(4)?;
/// let worker = Process::spawn(work, queue.producer())?;
/// let results = queue.consumer();
/// drop(queue);
///
/// let (mut received, mut is_over) = (Vec::new(), false);
/// while !is_over {
///     wait([&results as &dyn Source, &worker], None)?;
///     loop {
///         match results.try_get() {
///             Ok(result) => received.push(result),
///             Err(error) => break is_over = error.is_disconnected(),
///         }
///     }
/// }
/// assert!(worker.join().is_err());
/// assert_eq!(received, [7]);
/// # Ok(())
/// # }
/// ```
///
/// With many workers, and messages of several kinds, a `WaitSet` for each kind is a typed select:
/// see the recipe "Select" of the guide in the repository.
///
/// # Examples
///
/// ```
/// use multiproc_pipe::{Source, duplex, simplex, wait};
/// use std::{os::fd::AsFd, time::Duration};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (receiver, sender) = simplex::<u8>()?;
/// let (left, right) = duplex::<u8, String>()?;
/// let zero = std::fs::File::open("/dev/zero")?;
/// assert_eq!(wait([&receiver as &dyn Source, &left, &zero], None)?, [2]);
/// sender.send(1)?;
/// assert_eq!(wait([&receiver as &dyn Source, &left, &zero], None)?, [0, 2]);
/// assert!(wait([&left], Some(Duration::from_millis(1)))?.is_empty());
/// drop(right);
/// assert_eq!(wait(&[left.as_fd(), zero.as_fd()], None)?, [0, 1]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the operating system or a source returns an error.
#[doc(alias = "select")]
#[doc(alias = "poll")]
#[doc(alias = "epoll")]
pub fn wait<I>(sources: I, timeout: Option<Duration>) -> io::Result<Vec<usize>>
where
    I: IntoIterator,
    I::Item: Source,
{
    let sources: Vec<I::Item> = sources.into_iter().collect();
    wait_for_any(&sources, timeout)
}

/// Waits as [`wait`] does.
pub(crate) fn wait_for_any<S: Source>(
    sources: &[S],
    timeout: Option<Duration>,
) -> io::Result<Vec<usize>> {
    let deadline = timeout.map_or(Deadline::NEVER, Deadline::after);
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let mut fds = Vec::new();
    // The source of each descriptor.
    let mut owners = Vec::new();
    loop {
        let mut is_ready = sources.iter().map(Source::prepare).collect::<io::Result<Vec<_>>>()?;
        fds.clear();
        owners.clear();
        for (place, source) in sources.iter().enumerate() {
            source.watch(&mut |fd| {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                owners.push(place);
            });
        }
        // If one is ready already, the others are only checked.
        let longest = sources.iter().map(Source::longest_sleep).min().unwrap_or(Duration::MAX);
        let sleep = match deadline.remaining() {
            _ if is_ready.contains(&true) => Duration::ZERO,
            Some(left) => left.min(longest),
            None => longest,
        };
        let timeout = Some(sleep)
            .filter(|&sleep| sleep < Duration::MAX)
            .and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                for (fd, &place) in fds.iter().zip(&owners) {
                    if !is_ready[place] && !fd.revents().is_empty() {
                        is_ready[place] = sources[place].woken()?;
                    }
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if is_ready.contains(&true) || deadline.is_past() {
            let places = is_ready.iter().enumerate().filter(|(_, is_ready)| **is_ready);
            return Ok(places.map(|(place, _)| place).collect());
        }
    }
}

impl<S, R> Source for Connection<S, R> {
    fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        add(self.as_fd());
    }

    fn prepare(&self) -> io::Result<bool> {
        Ok(self.stream.check().is_err() || self.reader.is_ready())
    }

    fn woken(&self) -> io::Result<bool> {
        // If reading fails, `recv` returns that error.
        Ok(self.poll(Duration::ZERO).unwrap_or(true))
    }
}

impl<T> Source for Receiver<T> {
    fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        add(self.as_fd());
    }

    fn prepare(&self) -> io::Result<bool> {
        Ok(self.stream.check().is_err() || self.reader.is_ready())
    }

    fn woken(&self) -> io::Result<bool> {
        Ok(self.poll(Duration::ZERO).unwrap_or(true))
    }
}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        $(impl Source for $type {
            fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
                add(self.as_fd());
            }
        })*
    };
}

plain! {
    BorrowedFd<'_>, OwnedFd, Descriptor, File, PipeReader, Stdin, ChildStdout, ChildStderr,
    UnixStream, UnixListener, UnixDatagram, TcpStream, TcpListener, UdpSocket,
    dyn AsFd + '_,
}

macro_rules! pointers {
    ($($type:ty),*) => {
        $(impl<W: Source + ?Sized> Source for $type {
            fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
                (**self).watch(add);
            }

            fn prepare(&self) -> io::Result<bool> {
                (**self).prepare()
            }

            fn woken(&self) -> io::Result<bool> {
                (**self).woken()
            }

            fn longest_sleep(&self) -> Duration {
                (**self).longest_sleep()
            }
        })*
    };
}

pointers!(&W, &mut W, Box<W>, Rc<W>, Arc<W>);
