//! Frames: the layout of messages on a stream. Pure functions over bytes, without system calls.
//!
//! A frame is a header of 12 bytes and a body:
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | length of the body, little-endian `u64` |
//! | 8..12 | number of descriptors, little-endian `u32` |
//! | 12.. | the body |
//!
//! Descriptors are sent with the bytes of the header of their frame, at most
//! 253 with each byte. They have therefore all arrived when the header has,
//! and the body carries none.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::spare;

/// The size of a header in bytes.
pub const HEADER: usize = 12;

/// The kernel's limit for one SCM_RIGHTS message (SCM_MAX_FD).
pub(crate) const DESCRIPTORS_A_PACKET: usize = 253;

/// One packet with each byte of the header.
pub(crate) use multiproc_message::MAX_DESCRIPTORS;

const _: () = assert!(MAX_DESCRIPTORS == HEADER * DESCRIPTORS_A_PACKET);

/// The maximum size of one read: many small messages in one system call.
const READ_AHEAD: usize = 64 * 1024;

/// The maximum memory that is reserved in advance of the bytes that have arrived.
const GROWTH: usize = 1024 * 1024;

#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) length: usize,
    pub(crate) descriptors: usize,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&(self.length as u64).to_le_bytes());
        // Bounded by MAX_DESCRIPTORS, which every sender checks.
        bytes[8..].copy_from_slice(&u32::try_from(self.descriptors).unwrap_or(0).to_le_bytes());
        bytes
    }

    fn parse(bytes: [u8; HEADER]) -> Result<Self, String> {
        let [l0, l1, l2, l3, l4, l5, l6, l7, d0, d1, d2, d3] = bytes;
        let length = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        let descriptors = u32::from_le_bytes([d0, d1, d2, d3]) as usize;
        if length > isize::MAX as u64 {
            return Err(format!("a frame claims a length of {length} bytes"));
        }
        if descriptors > MAX_DESCRIPTORS {
            return Err(format!(
                "a frame claims {descriptors} descriptors, {MAX_DESCRIPTORS} is the most there can be"
            ));
        }
        Ok(Self { length: usize::try_from(length).unwrap_or(usize::MAX), descriptors })
    }
}

/// Removes the first frame from `bytes`, if it is complete, and returns its body.
///
/// For a server that reads its sockets itself, so that it keeps little for each client.
///
/// # Errors
///
/// If the header is not valid, or announces more than `longest` bytes, or descriptors.
pub fn next_frame<'a>(bytes: &mut &'a [u8], longest: usize) -> Result<Option<&'a [u8]>, String> {
    let Some((header, behind)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let Header { length, descriptors } = Header::parse(*header)?;
    if length > longest || descriptors > 0 {
        return Err(format!("a frame has {length} bytes and {descriptors} descriptors"));
    }
    let Some((body, rest)) = behind.split_at_checked(length) else { return Ok(None) };
    *bytes = rest;
    Ok(Some(body))
}

/// A complete frame.
pub(crate) struct Frame<'a> {
    pub(crate) body: Cow<'a, [u8]>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The destination of the next bytes of the stream.
pub(crate) enum Space<'a> {
    /// Read-ahead: any bytes, with descriptors.
    Ahead(&'a mut [u8], &'a mut VecDeque<OwnedFd>),
    /// The body of a large frame: its bytes are appended, up to the spare capacity.
    Body(&'a mut Vec<u8>),
}

/// Assembles frames from the pieces that the stream delivers.
///
/// An incomplete frame stays here, so a timeout in the middle of it loses nothing.
pub(crate) struct Assembler {
    /// Read-ahead, all initialised. `start..end` has been read and not yet consumed.
    ahead: Box<[u8]>,
    start: usize,
    end: usize,
    /// The descriptors that came with the bytes in `ahead`, in the order of their frames.
    descriptors: VecDeque<OwnedFd>,
    /// Whether descriptors after those above were lost. No frame beyond theirs can be read.
    has_lost: bool,
    /// The frame in progress, when it does not fit into `ahead`.
    large: Option<(Header, Vec<u8>)>,
    /// The emptied body of an earlier frame, to be reused. New memory costs more than a copy.
    spare: Vec<u8>,
}

impl Assembler {
    pub(crate) fn new() -> Self {
        Self {
            ahead: Box::default(),
            start: 0,
            end: 0,
            descriptors: VecDeque::new(),
            has_lost: false,
            large: None,
            spare: Vec::new(),
        }
    }

    /// Creates an assembler that has already read these bytes and descriptors.
    pub(crate) fn resume(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Self {
        let mut resumed = Self { descriptors: descriptors.into(), ..Self::new() };
        if !bytes.is_empty() {
            resumed.ahead = vec![0; bytes.len().max(READ_AHEAD)].into_boxed_slice();
            resumed.ahead[..bytes.len()].copy_from_slice(bytes);
            resumed.end = bytes.len();
        }
        resumed
    }

    /// Returns `true` if a frame has begun and is not complete.
    pub(crate) fn is_inside_frame(&self) -> bool {
        self.large.is_some() || self.start < self.end
    }

    /// Returns the bytes, and their descriptors, that have been read and not yet consumed.
    pub(crate) fn pending(&self) -> (Vec<u8>, &VecDeque<OwnedFd>) {
        let mut bytes = Vec::new();
        if let Some((header, body)) = &self.large {
            bytes.extend_from_slice(&header.to_bytes());
            bytes.extend_from_slice(body);
        }
        bytes.extend_from_slice(&self.ahead[self.start..self.end]);
        (bytes, &self.descriptors)
    }

    /// Returns `true` if [`next`](Self::next) would return a frame or an error.
    pub(crate) fn is_ready(&self) -> bool {
        !matches!(self.look(), Ok(None))
    }

    /// Returns the header of the next frame, if that is complete.
    #[inline]
    fn look(&self) -> Result<Option<Header>, String> {
        if let Some((header, body)) = &self.large
            && body.len() == header.length
        {
            return Ok(Some(*header));
        }
        // At most those of one frame and the packet that began the next one can wait here.
        if self.descriptors.len() > MAX_DESCRIPTORS + DESCRIPTORS_A_PACKET {
            return Err("more descriptors came than frames announced".to_owned());
        }
        if self.large.is_some() {
            return Ok(None);
        }
        let bytes = &self.ahead[self.start..self.end];
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            if bytes.is_empty() && !self.descriptors.is_empty() {
                return Err("descriptors came that no frame announced".to_owned());
            }
            return Ok(None);
        };
        let header = Header::parse(*header)?;
        Ok((rest.len() >= header.length).then_some(header))
    }

    /// Returns the length that the next frame announces, if its header has arrived.
    pub(crate) fn announced(&self) -> Option<usize> {
        if let Some((header, _)) = &self.large {
            return Some(header.length);
        }
        let header = self.ahead[self.start..self.end].first_chunk::<HEADER>()?;
        // An invalid header counts as longer than any frame.
        Some(Header::parse(*header).map_or(usize::MAX, |header| header.length))
    }

    /// Removes and returns the next frame, if it is complete.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, String> {
        let Some(header) = self.look()? else { return Ok(None) };
        let descriptors = self.claim(header.descriptors)?;
        let body = match self.large.take() {
            Some((_, body)) => Cow::Owned(body),
            None => {
                let body = self.start + HEADER..self.start + HEADER + header.length;
                self.start = body.end;
                Cow::Borrowed(&self.ahead[body])
            }
        };
        Ok(Some(Frame { body, descriptors }))
    }

    /// Keeps the body of a frame for the next one.
    pub(crate) fn recycle(&mut self, mut body: Vec<u8>) {
        if body.capacity() <= spare::SMALL {
            body.clear();
            self.spare = body;
        } else {
            spare::keep(body);
        }
    }

    /// Returns the space for the next read, which is never empty.
    pub(crate) fn space(&mut self) -> Result<Space<'_>, std::collections::TryReserveError> {
        self.begin_large_body();
        if let Some((header, body)) = &mut self.large {
            // The capacity does not exceed the frame, so a read may fill all of it.
            let missing = header.length - body.len();
            if body.capacity() == body.len() {
                body.try_reserve_exact(missing.min(body.len().max(GROWTH)))?;
            }
            return Ok(Space::Body(body));
        }
        if self.ahead.is_empty() {
            self.ahead = vec![0; READ_AHEAD].into_boxed_slice();
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            // Part of a frame: moved to the front, so that the whole frame fits.
            self.ahead.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        Ok(Space::Ahead(&mut self.ahead[self.end..], &mut self.descriptors))
    }

    /// Allocates a buffer for a frame that has begun and does not fit into `ahead`.
    fn begin_large_body(&mut self) {
        let bytes = &self.ahead[self.start..self.end];
        if let Some((header, body)) = bytes.split_first_chunk::<HEADER>()
            && let Ok(header) = Header::parse(*header)
            && header.length + HEADER > self.ahead.len()
        {
            let mut large = match header.length {
                ..=spare::SMALL => std::mem::take(&mut self.spare),
                length => spare::take(length),
            };
            // A read fills all of it and must not exceed the frame.
            large.shrink_to(header.length);
            if large.capacity() > header.length {
                large = Vec::new();
            }
            large.reserve_exact(body.len());
            large.extend_from_slice(body);
            self.large = Some((header, large));
            (self.start, self.end) = (0, 0);
        }
    }

    /// Records that `count` bytes were read into [`Space::Ahead`].
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// Records that descriptors of the bytes read last were lost. Frames before them can still be
    /// taken, but nothing more must be read.
    pub(crate) fn lose_descriptors(&mut self) {
        self.has_lost = true;
    }

    pub(crate) fn has_lost_descriptors(&self) -> bool {
        self.has_lost
    }

    fn claim(&mut self, count: usize) -> Result<Vec<OwnedFd>, String> {
        if self.descriptors.len() < count {
            let came = self.descriptors.len();
            return Err(format!("a frame announces {count} descriptors, {came} came with it"));
        }
        Ok(self.descriptors.drain(..count).collect())
    }
}

#[cfg(test)]
mod tests;
