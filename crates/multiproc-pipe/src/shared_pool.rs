//! Where the memory of a stream of [`SharedBytes`] comes from, and where it comes back to.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use multiproc_shm::{Frozen, Segment};

use crate::shared_bytes::SharedBytes;
use multiproc_shm::Deadline;

const PAGE: usize = 4096;

/// A pool of shared memory, for a stream of [`SharedBytes`].
///
/// [`buffer`](Self::buffer) gives memory to fill, [`freeze`](SharedBuffer::freeze) makes it
/// a [`SharedBytes`] to be sent. The receiver copies it on arrival. Then, or when it dies, or when the
/// message is thrown away, the memory is free for the next buffer, if no handle of it is left in this
/// process either. Nobody has to say so: the kernel knows who has it open.
///
/// A clone is another handle to the same pool. The memory that is free is given back to the system when
/// the last handle, buffer and `SharedBytes` of it is dropped; receivers keep the last few segments
/// that they have seen mapped, of 256 MiB together at most.
///
/// ```
/// use multiproc_pipe::{SharedBytes, SharedPool, duplex};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (left, right) = duplex::<SharedBytes, ()>()?;
/// let pool = SharedPool::new();
/// for frame in 0..10 {
///     let mut buffer = pool.buffer(1024 * 1024)?;
///     buffer.fill(frame);
///     left.send(buffer.freeze())?;
///     assert_eq!(right.recv()?[1000], frame);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Who sees what
///
/// A receiver is lent whole segments, with what earlier buffers left in them. So receivers that must
/// not see what others got need a pool each.
///
/// # A receiver that does not receive
///
/// `buffer` does not wait for it: memory that is still lent is left alone, and there will be more of
/// it, until [`send`](crate::Connection::send) blocks because some hundred messages wait. Where that is
/// too much, look at [`lent`](Self::lent) before making another.
#[derive(Clone)]
pub struct SharedPool(Arc<Pool>);

struct Pool {
    max_segments: usize,
    max_bytes: usize,
    /// What nobody in this process uses; it may be lent. The last one that came back is the last.
    idle: Mutex<Vec<Frozen>>,
}

/// Makes a [`SharedPool`] that keeps more or less than others.
///
/// ```
/// use multiproc_pipe::SharedPool;
///
/// let pool = SharedPool::builder().max_segments(2).build();
/// # drop(pool);
/// ```
#[derive(Debug, Clone)]
#[must_use = "it makes a pool when `build` is called"]
pub struct SharedPoolBuilder {
    max_segments: usize,
    max_bytes: usize,
}

impl SharedPoolBuilder {
    /// How many pieces of memory are kept for later buffers; 8, if not said.
    pub fn max_segments(mut self, segments: usize) -> Self {
        self.max_segments = segments;
        self
    }

    /// How many bytes are kept for later buffers; 256 MiB, if not said.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Makes it. It takes no memory until the first buffer.
    #[must_use]
    pub fn build(self) -> SharedPool {
        let Self { max_segments, max_bytes } = self;
        SharedPool(Arc::new(Pool { max_segments, max_bytes, idle: Mutex::default() }))
    }
}

impl SharedPool {
    /// A pool that keeps up to 8 pieces of memory, of up to 256 MiB together.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// To say what it keeps.
    pub fn builder() -> SharedPoolBuilder {
        SharedPoolBuilder { max_segments: 8, max_bytes: 256 * 1024 * 1024 }
    }

    /// Memory of `len` bytes, to be filled. It holds what an earlier buffer of this pool left there, or
    /// zeros.
    ///
    /// # Errors
    ///
    /// If the system has no memory or descriptors left, or `len` is more than a file may have
    /// (RLIMIT_FSIZE).
    pub fn buffer(&self, len: usize) -> io::Result<SharedBuffer> {
        let segment = self.0.take(size_for(len)?)?;
        Ok(SharedBuffer { segment: Some(segment), len, pool: Arc::clone(&self.0) })
    }

    /// How many pieces of memory are with receivers: sent, and not received so far.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.0.idle().iter().filter(|frozen| frozen.is_lent()).count()
    }
}

impl Default for SharedPool {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SharedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedPool({} pieces kept)", self.0.idle().len())
    }
}

/// A little more than was asked for, so that buffers of about the same length use the same memory.
fn size_for(len: usize) -> io::Result<usize> {
    let step = (len.checked_next_power_of_two().unwrap_or(len) / 16).max(PAGE);
    len.max(1).checked_next_multiple_of(step).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Nothing fits that is not lent.
struct NothingFree {
    /// Another one would be one too many.
    is_full: bool,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Frozen>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, size: usize) -> io::Result<Segment> {
        let mut patience = None;
        loop {
            match self.try_take(size) {
                Ok(segment) => return Ok(segment),
                Err(NothingFree { is_full: false }) => return Segment::create(size),
                Err(NothingFree { is_full: true }) => {
                    // Not longer than making one takes, some 500 µs a MiB: so it is never much dearer
                    // than the better choice, whichever that was.
                    let worth = || Duration::from_nanos(size as u64 / 2);
                    if patience.get_or_insert_with(|| Deadline::after(worth())).is_past() {
                        return Segment::create(size);
                    }
                    thread::yield_now();
                }
            }
        }
    }

    /// The last one that came back, of those that are free: it is the one most likely to be in the cache.
    fn try_take(&self, size: usize) -> Result<Segment, NothingFree> {
        let mut idle = self.idle();
        let mut is_lent = false;
        for index in (0..idle.len()).rev() {
            if !(size..=size.saturating_mul(4)).contains(&idle[index].len()) {
                continue;
            }
            match idle.remove(index).thaw() {
                Ok(segment) => return Ok(segment),
                Err(frozen) => idle.insert(index, frozen),
            }
            is_lent = true;
        }
        let is_full =
            idle.len() >= self.max_segments || bytes(&idle).saturating_add(size) > self.max_bytes;
        Err(NothingFree { is_full: is_full && is_lent })
    }

    fn give_back(&self, frozen: Frozen) {
        let mut idle = self.idle();
        idle.push(frozen);
        let is_too_much =
            |idle: &[_]| idle.len() > self.max_segments || bytes(idle) > self.max_bytes;
        let too_many = (0..idle.len()).take_while(|&n| is_too_much(&idle[n..])).count();
        let gone: Vec<Frozen> = idle.drain(..too_many).collect();
        // Unmapping takes long.
        drop(idle);
        drop(gone);
    }
}

fn bytes(segments: &[Frozen]) -> usize {
    segments.iter().map(Frozen::len).sum()
}

/// Memory of a [`SharedPool`], to be filled: a slice of bytes.
///
/// Dropping it gives it back to its pool.
pub struct SharedBuffer {
    /// There until it is frozen or dropped.
    segment: Option<Segment>,
    len: usize,
    pool: Arc<Pool>,
}

impl SharedBuffer {
    /// Makes it shorter, if it is longer than `len`. What is cut off is no part of what is frozen.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// What is in it now, for good: to be sent.
    #[must_use]
    pub fn freeze(mut self) -> SharedBytes {
        let frozen = self.segment.take().map(Segment::freeze);
        SharedBytes::filled(Filled { frozen, len: self.len, pool: Arc::clone(&self.pool) })
    }
}

impl Deref for SharedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.segment.as_ref().map_or(&[], |segment| &segment.bytes()[..self.len])
    }
}

impl DerefMut for SharedBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.segment.as_mut().map_or(&mut [], |segment| &mut segment.bytes_mut()[..self.len])
    }
}

impl AsRef<[u8]> for SharedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for SharedBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBuffer({} bytes)", self.len)
    }
}

impl Drop for SharedBuffer {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.pool.give_back(segment.freeze());
        }
    }
}

/// A buffer that was frozen: what is behind a [`SharedBytes`].
pub(crate) struct Filled {
    /// There until it is dropped.
    frozen: Option<Frozen>,
    len: usize,
    pool: Arc<Pool>,
}

impl Filled {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.frozen.as_ref().map_or(&[], |frozen| &frozen.bytes()[..self.len])
    }

    pub(crate) fn lend(&self) -> io::Result<OwnedFd> {
        self.frozen.as_ref().ok_or(io::ErrorKind::NotFound)?.lend()
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            self.pool.give_back(frozen);
        }
    }
}
